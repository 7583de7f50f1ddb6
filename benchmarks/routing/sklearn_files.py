"""A linear classifier on hashed character n-grams, as a command: MODEL.npz FOLDER -> CSV."""

import sys
from pathlib import Path

import numpy as np


def vectorizer(features: int):
    """Text -> hashed counts of its character 1-, 2- and 3-grams."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char", ngram_range=(1, 3), n_features=features, alternate_sign=False
    )


def main(model: str, folder: str) -> None:
    """Prints file, expert and nearest (the class) of every file."""
    stored = np.load(model)
    files = sorted(Path(folder).iterdir())
    print("file,expert,nearest")
    work = vectorizer(stored["coef"].shape[1])
    for start in range(0, len(files), 256):
        part = files[start : start + 256]
        x = work.transform([file.read_text("utf-8") for file in part])
        best = (x @ stored["coef"].T + stored["intercept"]).argmax(1)
        for file, name in zip(part, stored["names"][best], strict=True):
            print(f"{file},{name},{name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
