"""Example windows: the original and what the expert rebuilt, token by token."""

import re
from collections.abc import Sequence

from cr_jax.report.text import decimal, escape, mapping, number, percent, sequence

# How many bytes a UTF-8 character has, by its first: from, below.
_UTF8 = ((1, 0, 0x80), (2, 0xC2, 0xE0), (3, 0xE0, 0xF0), (4, 0xF0, 0xF5))
MOST_TOKENS = 4000  # drawn on the page, about 0.6 MB; the rest stays in report.json
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def piece_text(piece: object) -> str:
    """A tokenizer piece as the text it stands for (SentencePiece's space mark and ASCII bytes)."""
    return piece_texts([piece])[0]


def piece_texts(pieces: Sequence[object]) -> list[str]:
    """Each piece as its text; bytes that make one character together are joined in the last one.

    A byte that belongs to no character stays "<0xE2>"; the others of a character are "".
    """
    texts = ["" if p is None else str(p).replace("▁", " ") for p in pieces]
    values = [int(m[1], 16) if (m := _BYTE.fullmatch(text)) else None for text in texts]
    place = 0
    while place < len(values):
        first = values[place]
        length = (
            0 if first is None else next((n for n, low, high in _UTF8 if low <= first < high), 0)
        )
        whole = values[place : place + length]
        if length and None not in whole:
            try:
                character = bytes(whole).decode("utf-8")
            except UnicodeDecodeError:
                length = 0
            else:
                texts[place : place + length] = [""] * (length - 1) + [character]
        place += max(length, 1)
    return texts


def show_white_space(text: str) -> str:
    """`text` with its white space drawn: a wrong token must be seen even if it is a space."""
    text = text.replace(" ", "·").replace("\t", "⇥").replace("\r", "␍").replace("\n", "↵\n")
    return text or "∅"


def _doubt(confidence: object) -> int:
    """Tint 0 (certain) .. 9 (a guess)."""
    x = number(confidence)
    return 0 if x is None else min(9, int(10 * (1 - min(1.0, max(0.0, x)))))


def _token(token: dict, text: str) -> str:
    """text: what the token's side shows of it, "" inside a character of several byte pieces."""
    wrong = token.get("correct") is False
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
        texts = piece_texts([t.get(side) for t in tokens])
        body = "".join(_token(t, text) for t, text in zip(tokens, texts))
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
