"""Pages from templates, which the report, the matrix and the status page share."""

from typing import Any


def render(template: str, **values: Any) -> str:
    """Fill a template of this package.

    Text that came from files is escaped, and its control characters are written out. A value that the template names and does not
    get is an error.

    Args:
        template: file name in `rislab/report/templates/`.
        values: what the template names, markup that was made here and functions included.

    Returns:
        One page that needs no other file.
    """
    # Imported here, because `status` needs no page in most of its uses.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from rislab.printable import for_template

    environment = Environment(
        loader=PackageLoader("rislab.report"),
        autoescape=True,
        finalize=for_template,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)
