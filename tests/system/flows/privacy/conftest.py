"""A fixture shared with the tests of tests/flows/privacy."""

from tests.flows.privacy.conftest import workspace
