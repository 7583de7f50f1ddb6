"""Valid chooses the try of each domain, and what all tries have cost is kept."""

from cr_jax.config import LmConfig
from cr_jax.modular import tries
from cr_jax.modular.training_stage import Finished

TINY = LmConfig(d_model=16, heads=2, d_ff=32, blocks=1, dtype="float32")


def test_another_try_is_chosen_for_another_domain():
    def finished(losses, tokens, weight):
        note = {
            "train_tokens": dict.fromkeys(losses, tokens),
            "train_flops": 10.0 * tokens * len(losses),
            "best": {n: {"valid_nll": loss} for n, loss in losses.items()},
            "seconds": 1.0,
            "parameters": 7,
        }
        return Finished(TINY, dict.fromkeys(losses, weight), note)

    found = tries.chosen(
        {"a": finished({"x": 1.0, "y": 2.0}, 5, "a"), "b": finished({"x": 1.5, "y": 1.0}, 20, "b")}
    )
    assert found.params == {"x": "a", "y": "b"} and found.note["chosen"] == {"x": "a", "y": "b"}
    assert found.note["train_tokens"] == {"x": 5, "y": 20} and found.note["search_tokens"] == 50
    assert found.note["train_flops"] == 250.0
    diverged = tries.chosen(
        {"a": finished({"x": float("nan")}, 5, "a"), "b": finished({"x": 1.5}, 20, "b")}
    )
    assert diverged.note["chosen"] == {"x": "b"}
