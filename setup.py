"""Install with `pip install .`; extras: gpu, tpu, gpt2, hf, data, hub, wandb, completion, report,
torch, test, dev."""

from pathlib import Path

from setuptools import find_packages, setup

# nbclient, ipykernel and matplotlib run the notebook.
TEST = [
    "pytest",
    "pytest-xdist",
    "beartype",
    "ruff",
    "mypy",
    "import-linter",
    "scikit-learn",
    "nbclient",
    "ipykernel",
    "matplotlib",
    "hypothesis",
    "tiktoken",
    "markdown-it-py",
    "ruptures",
    "tokenizers>=0.20",
    "pyarrow>=17",
]

setup(
    name="cr_jax",
    version="0.1.0",
    description="Compression is Routing (arXiv 2512.16963) in JAX/Flax: domain compressors whose "
    "reconstruction error routes text",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # Settings and notebooks lie beside the package here, and inside it in a wheel.
    packages=[*find_packages(include=["cr_jax", "cr_jax.*"]), "cr_jax.configs", "cr_jax.colabs"],
    package_dir={"cr_jax.configs": "configs", "cr_jax.colabs": "colabs"},
    package_data={
        "cr_jax": ["py.typed"],
        "cr_jax.colabs": ["*.ipynb"],
        "cr_jax.data.samples": ["*.xz", "*.md"],
        "cr_jax.studies.capacity": ["*.jsonl"],
        "cr_jax.bank.pretrained": [
            "README.md",
            "bank/*.json",
            "bank/tokenizer/*",
            "bank/experts/*/*",
            "bank/seed_lm/*",
        ],
    },
    # The lowest versions that work together: `make test-lowest` runs with exactly these.
    install_requires=[
        "absl-py>=2.1",
        "clu>=0.0.12",
        "flax>=0.12",
        "grain>=0.2.12",
        "jax>=0.7.1",
        "jaxtyping>=0.3",
        "ml-collections>=1.0",
        "ml-dtypes>=0.5.0",
        "numpy>=2.0",
        "optax>=0.2.7",
        "orbax-checkpoint>=0.11.20",
        "safetensors>=0.5",
        "scipy>=1.13",
        "sentencepiece>=0.2.2",  # below, a model from a stranger can make it read wild memory
        "tensorboardX>=2.6.2.2",
        "tensorflow-datasets>=4.9.10",
        "tensorstore>=0.1.74",
        "tqdm>=4.66",
        "zstandard>=0.22",
    ],
    extras_require={
        "gpu": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "gpt2": ["tiktoken"],
        "hf": ["tokenizers>=0.20"],  # a tokenizer.json
        "data": ["pyarrow>=17"],  # parquet: and hf:FOLDER
        "hub": ["datasets>=3", "pyarrow>=17"],  # hf:NAME/SPLIT
        "wandb": ["wandb"],  # config.train.wandb
        "completion": ["argcomplete"],  # of the shell
        "report": ["matplotlib"],
        "torch": ["torch"],  # the peer that training speed and equality are measured against
        "test": TEST,
        "dev": TEST,
    },
    entry_points={"console_scripts": ["cr-jax=cr_jax.cli:main"]},
)
