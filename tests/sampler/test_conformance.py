"""Optuna's own conformance kit, whole, for both configurations."""

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase

from optuna_trlhpo import TRLHPOSampler


@pytest.mark.slow
class TestDefault(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return TRLHPOSampler


class TestDefaultWithoutStartup(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    """The kit's studies are short: without startup trials it is the agent that plays them."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: TRLHPOSampler(n_startup_trials=0)


@pytest.mark.slow
class TestPaper(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return TRLHPOSampler.paper
