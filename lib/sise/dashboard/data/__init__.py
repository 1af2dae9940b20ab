"""What the pages show, as pandas frames: pure functions over a LakeView, tested without a browser."""
