"Sphinx settings for `make docs`: the notebooks as they were last run, nothing is executed."
project = html_title = "emoart"
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_render_markdown_format = "myst" # tables in Markdown outputs
myst_enable_extensions = ["dollarmath"]
html_theme = "sphinx_book_theme"
exclude_patterns = ["**/.ipynb_checkpoints"]
html_static_path = ["_static"]
html_css_files = ["tables.css"]
