"""The published task: the same loss and gradients as the oracle on the same batch and mask."""

import numpy as np
import pytest
import torch

from reference import published
from sagefm.model import Config, SageFM
from sagefm.pp.vocabulary import Vocabulary
from sagefm.pretrain.module import Pretraining, masked_error
from sagefm.pretrain.recipe import TrainTable
from sagefm.pretrain.spots import Shuffled, Spots

WIDTHS = (24, 16, 16, 16, 20)


@pytest.fixture
def task(slide, model):
    prepared = model.prepare(slide)
    module = Pretraining(model.network, model.config.n_neighbors, TrainTable(seed=3))
    return prepared, Spots.of([prepared]), module


def test_loss_and_gradients_are_those_of_the_oracle(task):
    prepared, spots, module = task
    centers = [3, 77, 150, 4, 5, 199]
    batch = spots.gather(centers)
    masks = module.masks(batch, 9)
    module.zero_grad()
    loss = module.loss(batch, masks)
    loss.backward()

    oracle = published.of_ours(module.network.state_dict(), WIDTHS)
    hidden = np.zeros(prepared.expression.shape, dtype=bool)
    hidden[: len(centers)] = masks.numpy()
    graphs = published.subgraphs(prepared.expression, prepared.neighbors[centers], hidden)
    (whole,) = published.batches(graphs)
    predicted = oracle(whole.x, whole.edge_index)[::15]
    truth = torch.from_numpy(prepared.expression[centers].toarray())
    expected = ((predicted - truth)[masks] ** 2).mean()
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    gradients = dict(module.network.named_parameters())
    pairs = [
        (gradients["first"].grad, oracle.conv1.lin.weight.grad.T),
        (gradients["first_bias"].grad, oracle.conv1.bias.grad),
        (gradients["decoder.weight"].grad, oracle.fc_gene.weight.grad),
        (gradients["decoder.bias"].grad, oracle.fc_gene.bias.grad),
    ]
    for layer in range(4):
        theirs = getattr(oracle, f"conv{layer + 2}")
        pairs.append((gradients[f"encoder.{layer}.weight"].grad, theirs.lin.weight.grad))
        pairs.append((gradients[f"encoder.{layer}.bias"].grad, theirs.bias.grad))
    for ours, theirs in pairs:
        assert float(theirs.abs().max()) > 1e-6
        assert float((ours - theirs).abs().max()) <= 1e-5


def test_masks_differ_between_epochs_and_batches_but_not_between_runs(task):
    _, spots, module = task
    batch = spots.gather([0, 1, 2])
    first = module.masks(batch, 0, 1, 1)
    assert torch.equal(first, module.masks(batch, 0, 1, 1))
    assert not torch.equal(first, module.masks(batch, 0, 1, 2))
    assert not torch.equal(first, module.masks(batch, 0, 2, 1))
    assert not torch.equal(first[0], first[1])
    assert torch.equal(module.validation_masks(batch, 4), module.validation_masks(batch, 4))


def test_only_hidden_entries_count():
    predicted, truth = torch.tensor([[1.0, 5.0], [2.0, 9.0]]), torch.zeros(2, 2)
    masks = torch.tensor([[True, False], [True, False]])
    assert float(masked_error(predicted, truth, masks)) == pytest.approx((1 + 4) / 2)


def test_every_spot_comes_once_an_epoch_in_another_order():
    order = Shuffled(np.arange(10, 60), seed=1)
    first = list(order)
    assert list(order) == first
    order.set_epoch(1)
    second = list(order)
    assert sorted(first) == sorted(second) == list(range(10, 60))
    assert first != second


def test_stacked_slides_do_not_see_each_other(slide, model):
    prepared = model.prepare(slide)
    spots = Spots.of([prepared, prepared])
    assert len(spots) == 400
    one, two = spots.gather([7, 30]), spots.gather([207, 230])
    torch.testing.assert_close(one.mean, two.mean)
    torch.testing.assert_close(one.centers, two.centers)


def test_an_untrained_network_starts_from_the_mean_of_each_gene(slide):
    vocabulary = Vocabulary(tuple(slide.var_names[:300]))
    model = SageFM.new(vocabulary, Config(widths=WIDTHS))
    expression = model.prepare(slide).expression
    mean = torch.from_numpy(expression.mean(axis=0).A1).float()
    model.network.start_from(mean)
    predicted = model.predict(slide).mean(axis=0)
    assert np.corrcoef(predicted, mean)[0, 1] > 0.9
