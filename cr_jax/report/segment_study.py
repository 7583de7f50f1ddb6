"""Pictures of the study `segments`: F1 by the length of pieces, the residual around a switch, and
one text with its spans.

Like `sections`: takes the report and returns HTML, or "" when it has no data.
"""

from cr_jax.report.charts import Series, legend, line_chart
from cr_jax.report.layout import figure, panel, panels
from cr_jax.report.segments import shown
from cr_jax.report.text import mapping, sequence


def pictures(report: dict) -> str:
    """Both curves and the text, each left out where the report lacks it."""
    found = mapping(report.get("segments"))
    return curves(mapping(found.get("curves"))) + document(mapping(found.get("document")))


def curves(found: dict) -> str:
    """F1 against the length of a piece; nats against the place beside a switch."""
    f1 = _lines(mapping(found.get("f1")), "tokens")
    around = _lines(mapping(found.get("at_switch")), "token")
    left = line_chart(f1, "tokens of a piece", "F1 within 8 tokens", share=True)
    right = line_chart(around, "tokens after the switch", "nats/token")
    # A legend beside each chart: the same colours stand for other things in the other.
    body = panels(
        panel("Switches found", left + legend([(s.name, s.slot) for s in f1])) if left else "",
        panel("Around a switch", right + legend([(s.name, s.slot) for s in around]))
        if right
        else "",
    )
    return body and figure(
        body,
        "Left, boundary F1 of spliced test texts by the mean length of their pieces; right, what "
        "tokens before and after a known switch cost on average by the expert of their fixed "
        "window, and by the expert of their span, encoded from its own first token.",
        "fixed windows find as many switches as spans, or spans cost as much around a switch.",
    )


def _lines(found: dict, x: str) -> list[Series]:
    xs, names = sequence(found.get(x)), [name for name in found if name != x]
    return [Series(str(n), slot, xs, sequence(found[n])) for slot, n in enumerate(names)]


def document(record: dict) -> str:
    """One spliced test text, coloured; "" where the record is none."""
    from cr_jax.routing.segment_view import StoredView  # imports JAX

    try:
        view = StoredView.of_record(record)
    except (KeyError, TypeError, ValueError, IndexError):
        return ""
    return f"<h3>A text of the test split, spliced</h3>{shown(view)}"
