"""A run of seconds, used as `main.py --config=benchmarks/torture/tiny.py`; status: measured, see
results/torture.json.

Two experts of a thousand weights with everything that has state or keys: Muon, averages, random
rates, hidden tokens.  Every step is saved, so that most of the time a checkpoint is being written.
Text: `--config.data.root=FOLDER` with what `write_text(FOLDER)` wrote.
"""

from pathlib import Path

import numpy as np

from cr_jax.config import default, domain

LETTERS = {"digits": "0123456789 +-=", "letters": "abcdefghij klmno."}
SPLITS = ("train", "valid", "test")


def get_config():
    config = default()
    config.name = "torture"
    config.data.domains = {
        kind: domain(*(f"files:{{root}}/{kind}-{split}.txt" for split in SPLITS))
        for kind in LETTERS
    }
    config.tokenizer.kind = "bytes"
    config.model.update(
        vocab_size=258,
        window=12,
        latents=3,
        d_model=16,
        d_latent=16,
        heads=2,
        d_ff=24,
        encoder_blocks=1,
        decoder_blocks=0,
        bottleneck="fold",
        fold_channels=8,
        tie_embeddings=True,
        dtype="float32",
    )
    config.train.update(
        batch=8, steps=400, log_every=1, checkpoint_every=0.0, nested=0.5, hidden=0.5
    )
    config.eval.update(batch=8, windows=8, calibration_windows=16, examples=0)
    config.studies = ("fingerprint",)
    return config


def write_text(folder: Path, characters: int = 60_000) -> None:
    """FOLDER/KIND-SPLIT.txt: random characters, so that no two windows are alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, (kind, letters) in enumerate(LETTERS.items()):
        for column, split in enumerate(SPLITS):
            random = np.random.default_rng([row, column])
            count = characters if split == "train" else 2_000
            text = "".join(random.choice(list(letters), count))
            (folder / f"{kind}-{split}.txt").write_text(text, encoding="utf-8")
