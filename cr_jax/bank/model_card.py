"""The model card of an expert: README.md with the front matter that the Hugging Face Hub reads."""

import re
from collections.abc import Mapping
from typing import Any

from cr_jax.errors import UserError, printable
from cr_jax.scoring.wording import wording

_TAGS = ("compression", "routing", "autoencoder", "jax", "flax", "arxiv:2512.16963")
_CARD = """\
---
library_name: cr_jax
{license}tags:
{tags}
---
# {name}: a domain compressor

A Transformer autoencoder that was trained on the text of one domain. How many bits a text costs
under it says whether the text is of that domain
([Compression is Routing](https://arxiv.org/abs/2512.16963)). It routes beside other experts of the
same tokenizer and model shape.

| what | |
|---|---|
{rows}

## Use

```
pip install .    # in a checkout of cr_jax
hf download OWNER/{name} --local-dir {name}
cr-jax bank import --bank bank {name}
cr-jax route --bank bank FILE
```

Several experts of one bank are imported together or one after the other; in Python
`cr_jax.load(folder)` opens this folder alone.

## Files

`model.safetensors` holds the parameters, `calibration.json` residuals of validation text in
nats/token, and, where there are any, `bigram.safetensors` counts of token pairs and
`lm.safetensors` a language model. `expert.json` says how it was trained, `manifest.json` has the
SHA-256 of these files. The training text is not among them; its licence is for the publisher to
state.
"""


def text(name: str, bank: Mapping[str, Any], record: Mapping[str, Any], license_id: str) -> str:
    """name: of the expert; bank: what bank.json says of all experts; record: its config.json;
    license_id: empty states none.  `UserError` for what is no licence's name."""
    if license_id and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", license_id):
        raise UserError(f"--license {license_id!r} is no licence's name, such as apache-2.0")
    model, about = bank["model"], record.get("about") or {}
    rows = {
        "window": f"{model.get('window')} tokens",
        "latents": f"{model.get('latents')} of width {model.get('d_latent')}",
        "bottleneck": model.get("bottleneck"),
        "width of the states": model.get("d_model"),
        "blocks": f"{model.get('encoder_blocks')} + {model.get('decoder_blocks')}",
        "residual": wording(bank.get("scoring")).cost,
        "stored as": record.get("dtype"),
        "tokenizer": f"SHA-256 {str(bank['tokenizer'])[:12]}",
        **{key: about[key] for key in ("experiment", "steps", "tokens", "sources") if key in about},
    }
    return _CARD.format(
        license=f"license: {license_id}\n" if license_id else "",
        tags="\n".join(f"- {tag}" for tag in _TAGS),
        name=name,
        rows="\n".join(f"| {key} | {_cell(value)} |" for key, value in rows.items()),
    )


def _cell(value: Any) -> str:
    words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return printable(words).replace("|", "\\|")[:300]
