"Sphinx settings for `make docs`: the pages that 90_docsite writes, as the notebooks were last run; nothing is executed."
project = html_title = "emoart"
extensions = ["myst_nb", "sphinx_copybutton", "sphinxcontrib.bibtex", "emoart.workshop.docsite"]
templates_path = ["_templates"]

nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # tables in Markdown outputs
nb_number_source_lines = False
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
bibtex_cite_id = "{key}"
bibtex_default_style = "plain"
copybutton_exclude = ".linenos, .gp, .go"
add_module_names = False  # a module has a page of its own
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_theme_options = {
    "logo": {"text": "emoart"},
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "navigation_with_keys": False,
    "use_fullscreen_button": False,
    "use_download_button": False,
    "use_sidenotes": False,
    "footer_content_items": ["extra-footer.html"],
    "extra_footer": "<p>Apache-2.0. Every page is made from the notebooks and tables of the repository.</p>",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is, until the reader says otherwise
html_favicon = "_static/favicon.svg"
html_math_renderer = "mathml"  # of 90_docsite: no script, no network
html_static_path = ["_static"]
html_css_files = ["look.css", "site.css"]
html_show_sphinx = html_use_index = html_domain_indices = False
