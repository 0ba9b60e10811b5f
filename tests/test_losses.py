"""The losses against the same formulas in NumPy, and the gradient penalty in closed form."""

import numpy as np
import pytest
import torch
from activations import smooth
from torch import nn

from sagan.losses import adversarial_g, gradient_penalty, hinge_d, inconsistency, wasserstein_d
from sagan.networks import Discriminator, SaganConfig


def scores(count: int = 50) -> torch.Tensor:
    """Wide enough to fall on both sides of the hinge."""
    return 2 * torch.randn(count, dtype=torch.float64)


def batch(count: int = 3, size: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, size, size, dtype=torch.float64)


def test_hinge_loss_of_the_discriminator_by_hand():
    real, fake = scores(), scores()
    expected = np.mean([max(0.0, 1 - s) for s in real.tolist()])
    expected += np.mean([max(0.0, 1 + s) for s in fake.tolist()])
    assert hinge_d(real, fake).item() == pytest.approx(expected, abs=1e-12)


def test_hinge_is_zero_outside_the_margin_and_two_for_an_undecided_discriminator():
    assert hinge_d(torch.tensor([1.0, 7.0]), torch.tensor([-1.0, -3.0])).item() == 0
    assert hinge_d(torch.zeros(4), torch.zeros(4)).item() == 2


def test_hinge_teaches_only_from_scores_inside_the_margin():
    real, fake = scores().requires_grad_(True), scores().requires_grad_(True)
    hinge_d(real, fake).backward()
    np.testing.assert_allclose(real.grad, np.where(real.detach() < 1, -1 / 50, 0))
    np.testing.assert_allclose(fake.grad, np.where(fake.detach() > -1, 1 / 50, 0))


def test_wasserstein_loss_of_the_discriminator_by_hand():
    real, fake = scores(), scores()
    expected = np.mean(fake.numpy()) - np.mean(real.numpy())
    assert wasserstein_d(real, fake).item() == pytest.approx(expected, abs=1e-12)


def test_generator_loss_by_hand():
    fake = scores()
    assert adversarial_g(fake).item() == pytest.approx(-np.mean(fake.numpy()), abs=1e-12)


def test_real_and_fake_batches_may_differ_in_size():
    real, fake = scores(3), scores(8)
    assert wasserstein_d(real, fake).item() == pytest.approx(np.mean(fake.numpy()) - np.mean(real.numpy()))
    assert hinge_d(real, fake).item() == pytest.approx(
        np.maximum(0, 1 - real.numpy()).mean() + np.maximum(0, 1 + fake.numpy()).mean()
    )


def test_inconsistency_is_the_mean_squared_change_and_pulls_both_scores_together():
    one, other = (scores().requires_grad_(True) for _ in range(2))
    value = inconsistency(one, other)
    change = one.detach().numpy() - other.detach().numpy()
    assert value.item() == pytest.approx(np.mean(change**2), abs=1e-12)
    value.backward()
    np.testing.assert_allclose(one.grad, 2 * change / 50, atol=1e-12)
    np.testing.assert_allclose(other.grad, -2 * change / 50, atol=1e-12)


def test_gradient_penalty_of_a_linear_critic():
    """D(x) = w . x has the gradient w: the penalty is (|w| - 1)^2, its slope 2 (|w| - 1) w / |w|."""
    w = batch(1)[0].requires_grad_(True)
    penalty = gradient_penalty(lambda x: (x * w).sum((1, 2, 3)), batch(), batch(), torch.rand(3).double())
    penalty.backward()
    norm = np.linalg.norm(w.detach().numpy())
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-12)
    np.testing.assert_allclose(w.grad, 2 * (norm - 1) * w.detach().numpy() / norm, atol=1e-12)


def test_gradient_penalty_of_a_quadratic_critic_at_the_mixed_images():
    """D(x) = a |x|^2 / 2 has the gradient a x: mean((a |x| - 1)^2), with slope mean(2 (a |x| - 1) |x|)."""
    real, fake, mix = batch(), batch(), torch.rand(3).double()
    a = torch.empty((), dtype=torch.float64).uniform_(0.5, 2).requires_grad_(True)
    penalty = gradient_penalty(lambda x: a * x.square().sum((1, 2, 3)) / 2, real, fake, mix)
    penalty.backward()
    norms = np.array(
        [
            np.linalg.norm(m * r + (1 - m) * f)
            for m, r, f in zip(mix.tolist(), real.numpy(), fake.numpy(), strict=True)
        ]
    )
    slope = a.item()
    assert penalty.item() == pytest.approx(np.mean((slope * norms - 1) ** 2), abs=1e-10)
    assert a.grad.item() == pytest.approx(np.mean(2 * (slope * norms - 1) * norms), abs=1e-10)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_mix_is_the_share_of_the_real_image(share):
    real, fake = batch(), batch()
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.square().sum((1, 2, 3))

    gradient_penalty(critic, real, fake, torch.full((3,), share).double())
    assert torch.equal(seen[0], real if share else fake)


def test_gradient_penalty_does_not_reach_the_generator():
    fake = batch().requires_grad_(True)
    a = torch.ones((), dtype=torch.float64, requires_grad=True)
    critic = lambda x: a * x.square().sum((1, 2, 3))  # noqa: E731
    gradient_penalty(critic, batch(), fake, torch.rand(3).double()).backward()
    assert fake.grad is None and a.grad is not None


def test_gradient_penalty_of_a_flat_critic_is_one_and_its_gradient_finite():
    w = torch.zeros(3, 4, 4, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty(lambda x: (x * w).sum((1, 2, 3)), batch(), batch(), torch.rand(3).double())
    penalty.backward()
    assert penalty.item() == 1
    assert w.grad.isfinite().all()


def small_critic(**config) -> Discriminator:
    """A discriminator in float64 whose attention is switched on."""
    critic = Discriminator(
        SaganConfig(image_size=32, d_width=4, d_attention=(8, 4), d_spectral_norm=False, **config)
    ).double()
    for layer in critic.attention.values():
        nn.init.constant_(layer.gamma, 0.8)
    with torch.no_grad():
        for module in critic.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(2)  # away from the flat start, so that the penalty has a slope to measure
    return critic


def test_double_backward_of_the_penalty_reaches_every_weight_of_the_discriminator():
    critic = small_critic()
    gradient_penalty(critic, batch(4, 32), batch(4, 32), torch.rand(4).double()).backward()
    for name, parameter in critic.named_parameters():
        if name.endswith("bias"):  # some only shift a score or all logits of a row, which no gradient sees
            continue
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-8, name


def test_double_backward_through_attention_equals_a_difference_quotient():
    with smooth():
        critic = small_critic()
        real, fake, mix = batch(2, 32), batch(2, 32), torch.rand(2).double()
        penalty = lambda: gradient_penalty(critic, real, fake, mix)  # noqa: E731
        penalty().backward()
        layer, step = critic.attention["8x8"], 1e-7
        for parameter in (layer.gamma, layer.query.weight, layer.key.weight, layer.value.weight):
            direction = torch.randn_like(parameter)
            with torch.no_grad():
                parameter.add_(step * direction)
            above = penalty().item()
            with torch.no_grad():
                parameter.sub_(2 * step * direction)
            below = penalty().item()
            with torch.no_grad():
                parameter.add_(step * direction)
            expected = (above - below) / (2 * step)
            assert (parameter.grad * direction).sum().item() == pytest.approx(expected, rel=1e-3, abs=1e-8)


def test_gradient_penalty_of_a_conditional_discriminator_sees_the_labels():
    critic = small_critic(num_classes=3)
    real, fake, mix, labels = batch(4, 32), batch(4, 32), torch.rand(4).double(), torch.tensor([0, 2, 2, 0])
    gradient_penalty(lambda x: critic(x, labels), real, fake, mix).backward()
    touched = critic.embedding.weight.grad.abs().sum(dim=1) > 0
    assert touched.tolist() == [True, False, True]
