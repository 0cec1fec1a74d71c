"""Tables and blank space for what is shown as HTML.

pandas' `to_html` writes neither a caption nor the scope of a heading, and its Styler escapes nothing unless asked.
"""

import re
from collections.abc import Iterable
from html import escape

ENDS = re.compile(
    r"(?:</(?:b|caption|dd|div|dt|fieldset|figcaption|figure|h[1-6]|label|legend|li|output|p|small|span|summary|td|text"
    r"|th|tr)>|<br>)(?=[^\s.,;:!?)])"
)


class Html(str):
    """Text that is HTML already, so that `table` takes it as it is."""


def table(
    caption: str, heads: Iterable[str], rows: Iterable[Iterable], named: bool = False, kind: str = "", cell: str = ""
) -> Html:
    """A table with a caption and with scopes; all texts are escaped that are not `Html`.

    named : the first cell of a row names it. kind : class of the table, cell : style of each cell.
    """
    look, kind = f' style="{cell}"' * bool(cell), f' class="{kind}"' * bool(kind)
    head = "".join(f'<th scope="col"{look}>{_safe(text)}</th>' for text in heads)
    body = ""
    for row in rows:
        cells = ""
        for k, text in enumerate(row):
            tag, scope = ("th", ' scope="row"') if named and k == 0 else ("td", "")
            cells += f"<{tag}{scope}{look}>{_safe(text)}</{tag}>"
        body += f"<tr>{cells}</tr>"
    whole = f"<caption>{_safe(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return spaced(f"<table{kind}>{whole}</table>")


def spaced(html: str) -> Html:
    """The same with a new line after what stands apart on a page.

    Sphinx's search leaves the tags out and would take the words on both sides of one for a single word. Punctuation
    stays where it is.
    """
    return Html(ENDS.sub(r"\g<0>\n", html))


def _safe(text: object) -> str:
    return text if isinstance(text, Html) else escape(str(text))
