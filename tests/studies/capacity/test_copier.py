"""The control that any bottleneck of free numbers must be read against."""

from cr_jax.studies.capacity import copier


def test_eight_free_numbers_per_token_copy_random_ids_with_nothing_learnt():
    rows = {r["bits_per_number"]: r["tra"] for r in copier.run(5000, 8, (16, 4, 1), 256)["copier"]}
    assert rows[16] == 1.0
    assert rows[16] >= rows[4] > rows[1]


def test_fewer_bits_than_the_vocabulary_needs_cannot_copy_it():
    # 8 bits name at most 256 of 5,000 ids.
    row = copier.run(5000, 8, (1,), 512)["copier"][0]
    assert row["bits_per_token"] == 8
    assert row["tra"] < 256 / 5000 * 2
