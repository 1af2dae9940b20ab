from sise.dashboard.context import Here


def show(here: Here) -> None: ...
