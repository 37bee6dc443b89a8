import pytest

from minigpt.cost import scaling_laws


@pytest.mark.parametrize("law", [scaling_laws.kaplan_loss, scaling_laws.hoffmann_loss, scaling_laws.besiroglu_loss])
def test_more_parameters_or_more_data_never_hurt(law):
    for size in (1e8, 1e9, 1e11):
        for tokens in (1e9, 1e10, 3e11):
            assert law(size * 2, tokens) < law(size, tokens) > law(size, tokens * 2)


def test_the_laws_at_their_published_points():
    # Kaplan's equations 1.1 and 1.2 are the limits of 1.5; Hoffmann et al. put Chinchilla near 1.94.
    assert scaling_laws.kaplan_loss(1e9, 1e30) == pytest.approx((6.4e13 / 1e9) ** 0.076)
    assert scaling_laws.kaplan_loss(1e30, 1e9) == pytest.approx((1.8e13 / 1e9) ** 0.103, rel=1e-3)
    assert scaling_laws.hoffmann_loss(70e9, 1.4e12) == pytest.approx(1.94, abs=0.01)


@pytest.mark.parametrize("law", [scaling_laws.kaplan_loss, scaling_laws.hoffmann_loss])
def test_contributions_add_up_and_vanish_where_nothing_changes(law):
    before, after = (1e8, 1e9), (1e9, 1e10)
    assert sum(scaling_laws.contributions(law, before, after)) == pytest.approx(law(*before) - law(*after), rel=1e-12)
    by_size, by_data = scaling_laws.contributions(law, before, (1e9, 1e9))
    assert by_data == 0
    assert by_size == pytest.approx(law(1e8, 1e9) - law(1e9, 1e9), rel=1e-12)
