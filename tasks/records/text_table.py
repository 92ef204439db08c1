"""Tables of text, and their rendering as Markdown and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\^{}",
}


@dataclass(frozen=True)
class Table:
    """One table of text cells, with title and note."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def markdown(found: Sequence[Table]) -> str:
    """Render tables as Markdown."""
    parts = []
    for table in found:
        lines = [f"## {table.title}", "", markdown_table((table.headings, *table.rows))]
        parts.append("\n".join(lines + (["", table.note] if table.note else [])))
    return "\n\n".join(parts) + "\n"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Render rows of cells, headings first, as a Markdown table."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def latex(found: Sequence[Table]) -> str:
    """Render tables as LaTeX, which needs the packages booktabs and graphicx."""
    parts = []
    for table in found:
        columns = "l" + "r" * (len(table.headings) - 1)
        body = [" & ".join(map(_tex, cells)) + r" \\" for cells in (table.headings, *table.rows)]
        body[0] += r" \midrule"
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{_tex(table.title)}. {_tex(table.note)}}}",
                    rf"\resizebox{{\linewidth}}{{!}}{{\begin{{tabular}}{{{columns}}} \toprule",
                    *body,
                    r"\bottomrule \end{tabular}}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _tex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
