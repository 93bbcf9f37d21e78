"""Optuna's own conformance kit for every rival."""

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from optuna_trlhpo.baselines import (
    BananasSampler,
    BeamGrowthSampler,
    GreedyGrowthSampler,
    LayerwiseQSampler,
    LocalSearchSampler,
    MetaQNNSampler,
    MultiAgentSampler,
    RegularizedEvolutionSampler,
    SMACSampler,
)


class TestBananas(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: BananasSampler(n_startup_trials=2)  # the kit's studies are short


class TestBeamGrowth(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return BeamGrowthSampler


class TestGreedyGrowth(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return GreedyGrowthSampler


class TestLayerwiseQ(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LayerwiseQSampler(n_trials=4)


class TestLocalSearch(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LocalSearchSampler(n_startup_trials=1)


class TestMetaQNN(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: MetaQNNSampler(n_trials=4)


class TestMultiAgent(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: MultiAgentSampler(n_startup_trials=1)


class TestRegularizedEvolution(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: RegularizedEvolutionSampler(population_size=2)


@pytest.mark.smac
@pytest.mark.filterwarnings("ignore")
class TestSMAC(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return SMACSampler
