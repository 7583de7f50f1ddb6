"""An expert that is to join a bank: does it fit, and what will its files give back?"""

import dataclasses

from cr_jax.bank import parameters
from cr_jax.bank.expert import Expert, LanguageModels
from cr_jax.bank.files import check_name
from cr_jax.bank.settings import BankSettings
from cr_jax.errors import UserError


def fitted(expert: Expert, settings: BankSettings) -> Expert:
    """The expert with float32 arrays of its own that nobody writes to.

    `UserError` when the name is bad, shapes or numbers are not the model's, the bigram model has
    another vocabulary, or there is none and the bank's rule has a bigram_weight; when it has a
    language model and the bank has none, or has others.
    """
    name, bigram, model = check_name(expert.name), expert.bigram, settings.model
    params = parameters.checked(f"expert {name!r}", expert.params, model)
    if bigram is None and settings.scoring.bigram_weight:
        raise UserError(
            f"expert {name!r} has no bigram model, and the bank's rule has a "
            "bigram_weight: count one from its training text "
            "(cr_jax.scoring.bigram.count)"
        )
    if bigram is not None and len(bigram.alone) != model.vocab_size:
        raise UserError(
            f"the bigram model of expert {name!r} knows {len(bigram.alone)} "
            f"tokens, the bank's model has {model.vocab_size}: count it with "
            "these"
        )
    if expert.lm is None:
        return dataclasses.replace(expert, params=params)
    if settings.lm is None:
        raise UserError(
            f"expert {name!r} has a language model, and the bank does not say what these look "
            "like: make the bank with ExpertBank.create(..., lm=...), or give it all with "
            "with_lms"
        )
    lm = parameters.checked(whose_lm(name), expert.lm, settings.lm)
    return dataclasses.replace(expert, params=params, lm=lm)


def rounded(expert: Expert, dtype: str) -> Expert:
    """The expert as files of that dtype give it back.  `UserError` for no such dtype."""
    lm = None if expert.lm is None else parameters.rounded(expert.lm, dtype)
    return dataclasses.replace(expert, params=parameters.rounded(expert.params, dtype), lm=lm)


def rounded_lms(models: LanguageModels, dtype: str) -> LanguageModels:
    """Likewise of language models."""
    seed = None if models.seed is None else parameters.rounded(models.seed, dtype)
    experts = {name: parameters.rounded(x, dtype) for name, x in models.experts.items()}
    return LanguageModels(models.config, seed, experts)


def whose_lm(name: str) -> str:
    """What messages call an expert's language model."""
    return f"the language model of expert {name!r}"
