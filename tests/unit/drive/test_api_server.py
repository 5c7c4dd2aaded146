"""What goes over the wire to the API server, and what happens if it comes back wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreambooth.drive.api_server import ProgressConfigMap, in_cluster
from dreambooth.errors import InfrastructureError
from tests.unit.drive.cluster_api import ClusterApi, make_certificate


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ClusterApi]:
    server = ClusterApi(tmp_path)
    yield server
    server.close()


def config_map(api: ClusterApi, name: str = "rex-progress") -> ProgressConfigMap:
    return ProgressConfigMap(api.address, api.account, "team", name)


def test_a_record_becomes_the_content_of_the_config_map(api: ClusterApi) -> None:
    config_map(api).patch(json.dumps({"state": "Running", "message": "“ключ” $(id)\n"}))
    assert api.records == [{"state": "Running", "message": "“ключ” $(id)\n"}]
    assert api.headers[0]["accept"].startswith("application/json;as=PartialObjectMetadata")
    assert api.headers[0]["user-agent"].startswith("dreambooth/")


def test_a_token_that_was_replaced_is_used_from_the_next_patch_on(api: ClusterApi) -> None:
    target = config_map(api)
    target.patch("{}")
    api.tokens = {"second"}
    with pytest.raises(InfrastructureError, match="401: Unauthorized"):
        target.patch("{}")
    api.write_token("second")
    target.patch("{}")
    assert len(api.records) == 2


def test_a_server_with_another_authority_is_not_spoken_to(api: ClusterApi, tmp_path: Path) -> None:
    make_certificate(api.account / "ca.crt", tmp_path / "other.key")
    with pytest.raises(InfrastructureError, match="SSLError"):
        config_map(api).patch("{}")
    assert api.headers == []


def test_environment_variables_of_a_company_s_proxy_and_authority_change_nothing(
    api: ClusterApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    config_map(api).patch("{}")
    assert len(api.records) == 1


@pytest.mark.parametrize("status", [302, 403, 404, 409, 429, 500, 503])
def test_any_other_answer_is_an_error_with_the_server_s_words(api: ClusterApi, status: int) -> None:
    api.refusals = [status]
    with pytest.raises(InfrastructureError, match=f"status {status}: scripted"):
        config_map(api).patch("{}")
    assert api.records == []


def test_a_server_that_is_away_is_an_error(api: ClusterApi) -> None:
    target = config_map(api)
    api.close()
    with pytest.raises(InfrastructureError, match="ConnectionError"):
        target.patch("{}")


def test_a_missing_token_is_an_error(api: ClusterApi) -> None:
    (api.account / "token").unlink()
    with pytest.raises(InfrastructureError, match="FileNotFoundError"):
        config_map(api).patch("{}")


def test_outside_a_pod_there_is_nobody_to_tell() -> None:
    with pytest.raises(InfrastructureError, match="no API server"):
        in_cluster({}, "team", "rex-progress")
