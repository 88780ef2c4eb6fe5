"""The templates of pages; every text that comes into one from outside is escaped."""

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def page_template(name: str) -> Template:
    """A template of `evaluation/reports/data`, by its file's name."""
    environment = Environment(
        loader=PackageLoader("evaluation.reports", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
