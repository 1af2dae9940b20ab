"""The pages (a folder "pages" would be Streamlit's own): each has ``show(here)``, which draws it."""
