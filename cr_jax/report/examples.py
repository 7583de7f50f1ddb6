"""Example windows: the original and what the expert rebuilt, token by token."""

import re

from cr_jax.report.text import decimal, escape, mapping, number, percent, sequence

MOST_TOKENS = 4000  # drawn on the page, about 0.6 MB; the rest stays in report.json
_BYTE = re.compile(r"<0x([0-7][0-9A-F])>")


def piece_text(piece: object) -> str:
    """A tokenizer piece as the text it stands for (SentencePiece's space mark and ASCII bytes)."""
    text = "" if piece is None else str(piece)
    if match := _BYTE.fullmatch(text):
        return chr(int(match[1], 16))
    return text.replace("▁", " ")


def show_white_space(text: str) -> str:
    """`text` with its white space drawn: a wrong token must be seen even if it is a space."""
    text = text.replace(" ", "·").replace("\t", "⇥").replace("\r", "␍").replace("\n", "↵\n")
    return text or "∅"


def _doubt(confidence: object) -> int:
    """Tint 0 (certain) .. 9 (a guess)."""
    x = number(confidence)
    return 0 if x is None else min(9, int(10 * (1 - min(1.0, max(0.0, x)))))


def _token(token: dict, side: str) -> str:
    wrong = token.get("correct") is False
    text = piece_text(token.get(side))
    tint = _doubt(token.get("confidence"))
    kind = f"d{tint}" * (tint > 0) + (" x" if tint else "x") * wrong
    attribute = f' class="{kind}"' if kind else ""
    shown = [repr(piece_text(token.get(key)))[1:-1] for key in ("piece", "rebuilt")]
    hover = (
        f"{shown[0]} → {shown[1]}\n{percent(token.get('confidence'))} sure, "
        f"{decimal(token.get('nll'))} nats"
    )
    visible = show_white_space(text) if wrong else text
    return f'<i{attribute} title="{escape(hover)}">{escape(visible)}</i>'


def sample(example: dict) -> str:
    """One window: heading, original and reconstruction side by side."""
    tokens = [mapping(t) for t in sequence(example.get("tokens"))]
    wrong = sum(t.get("correct") is False for t in tokens)
    sides = []
    for title, side in (("original", "piece"), ("rebuilt from the latents alone", "rebuilt")):
        body = "".join(_token(t, side) for t in tokens)
        # A newline right after <pre> is dropped by HTML, so one is always given away.
        sides.append(f"<div><h4>{title}</h4><pre>\n{body}</pre></div>")
    expert, domain = example.get("expert"), example.get("domain")
    place = "at home" if expert == domain else "away from home"
    numbers = f"TRA {percent(example.get('tra'))}, {decimal(example.get('nll'))} nats/token"
    return (
        f'<div class="sample"><h3>{escape(expert)} reads {escape(domain)} '
        f"<small>{place}: {wrong} of {len(tokens)} tokens wrong, {numbers}</small></h3>"
        f'<div class="sides">{"".join(sides)}</div></div>'
    )


def samples(examples: list) -> str:
    """All windows up to MOST_TOKENS tokens, with a key to the marks; "" when there is none."""
    parts, used, left_out = [], 0, 0
    for example in map(mapping, examples):
        length = len(sequence(example.get("tokens")))
        if not length:
            continue
        if parts and used + length > MOST_TOKENS:
            left_out += 1
            continue
        used += length
        parts.append(sample(example))
    if not parts:
        return ""
    key = (
        '<div class="ramp key"><span>certain</span><span class="strip"><i>&nbsp;</i>'
        + "".join(f'<i class="d{i}">&nbsp;</i>' for i in range(1, 10))
        + '</span><span>a guess</span><span><i class="x">wrong</i> wrong token, its white space '
        "drawn as · ⇥ ↵</span><span>hover a token for its numbers</span></div>"
    )
    more = f'<p class="note">{left_out} more in report.json.</p>' if left_out else ""
    return key + "".join(parts) + more
