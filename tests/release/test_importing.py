"""Bringing in the registered models of another tracker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from instar.core.errors import UnsafeModel
from instar.core.store import Store
from instar.release import aliases, registered_models, registry
from instar.release.importing import ForeignModel, ForeignVersion, bring_in
from instar.release.packing import pack_logged
from instar.serve.traffic.derived import derive
from instar.train import artifacts, logged_models, runs
from instar.train.importing import FROM, run_id
from instar.train.logged_models import LoggedModel

MLMODEL = "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\nmodel_uuid: x\n"


@dataclass
class Kept:
    """A registry of another tracker."""

    found: list[ForeignModel]

    def models(self) -> Iterator[ForeignModel]:
        yield from self.found


def folder(place: Path, text: str = MLMODEL) -> Path:
    (place / "data").mkdir(parents=True)
    (place / "MLmodel").write_text(text)
    (place / "data" / "weights.txt").write_text("1 2 3")
    return place


def test_versions_come_over_with_files_tags_and_names_and_again_nothing(store: Store, tmp_path: Path) -> None:
    run = runs.start(store, "p", experiment="churn", id=run_id("a1", None), capture=False)
    versions = (
        ForeignVersion(
            1, "runs:/a1/model", "a1", None, "the first", "Production", {"k": "v"}, folder(tmp_path / "one")
        ),
        ForeignVersion(2, "s3://bucket/x"),
        ForeignVersion(3, "/elsewhere", folder=folder(tmp_path / "three", MLMODEL + "signature: null\n")),
    )
    source = Kept(
        [ForeignModel("clf", "who leaves", {"owner": "ada"}, {"best": 3, "champion": 1, "lost": 2}, versions)]
    )
    done = bring_in(store, "p", source, pack_logged, derive(store, "p"))
    assert (done.models, done.versions, done.known) == (1, 2, 0)
    assert any("version 2" in line and "s3://bucket/x" in line for line in done.left_out)
    assert any("clf version 3" in line and "clf@2" in line for line in done.left_out)
    model = registered_models.get(store, "p", "clf")
    assert (model.description, model.tags) == ("who leaves", {"owner": "ada"})
    first, second = registry.versions(store, "p", "clf")
    assert (first.run, first.stage, first.description, first.source) == (
        run.id,
        "Production",
        "the first",
        "runs:/a1/model",
    )
    assert second.run != run.id
    with store.database.read() as tx:
        assert registry.tags_of(tx, [first.id])[first.id] == {"k": "v", FROM: "clf/1 of a1"}
    assert aliases.aliases(store, "p", "clf") == {"best": 2, "champion": 1}
    assert first.logged_model is not None
    assert artifacts.open(store, first.logged_model, "data/weights.txt").read_text() == "1 2 3"
    assert logged_models.get(store, first.logged_model).state == "ready"
    again = bring_in(store, "p", source, pack_logged)
    assert (again.versions, again.known) == (0, 2)
    assert len(registry.versions(store, "p", "clf")) == 2


def test_a_version_that_is_refused_loses_no_other(store: Store, tmp_path: Path) -> None:
    def refuse_first(store: Store, model: LoggedModel) -> LoggedModel:
        if model.tags[FROM].startswith("clf/1 "):
            raise UnsafeModel("it would run code", subject=model.name)
        return pack_logged(store, model)

    versions = tuple(ForeignVersion(number, "/x", folder=folder(tmp_path / str(number))) for number in (1, 2))
    done = bring_in(store, "p", Kept([ForeignModel("clf", versions=versions)]), refuse_first)
    assert done.versions == 1
    assert any("it would run code" in line for line in done.left_out)
    whole = bring_in(store, "p", Kept([ForeignModel("clf", versions=versions)]), pack_logged)
    assert (whole.versions, whole.known) == (1, 1)
    with store.database.read() as tx:  # what the first attempt had begun was gone on with
        assert tx.execute(sa.select(sa.func.count()).select_from(logged_models.logged_model_table)).scalar_one() == 2


def test_a_model_of_another_tracker_with_the_same_name_and_number_comes_over_too(store: Store, tmp_path: Path) -> None:
    folders = {run: folder(tmp_path / run) for run in ("a1", "b1")}
    for run in ("a1", "b1", "a1"):
        version = ForeignVersion(1, f"runs:/{run}/model", run, folder=folders[run])
        bring_in(store, "p", Kept([ForeignModel("clf", versions=(version,))]), pack_logged)
    assert [one.source for one in registry.versions(store, "p", "clf")] == ["runs:/a1/model", "runs:/b1/model"]


def test_what_an_endpoint_answers_with_is_not_renamed(store: Store, tmp_path: Path) -> None:
    model = ForeignModel(
        "clf", aliases={"champion": 1}, versions=(ForeignVersion(1, "/x", folder=folder(tmp_path / "m")),)
    )
    done = bring_in(store, "p", Kept([model]), pack_logged, derived=lambda name, alias: 7)
    assert done.versions == 1
    assert any("alias champion" in line for line in done.left_out)
    assert aliases.aliases(store, "p", "clf") == {}


def test_a_model_whose_name_cannot_be_kept_loses_no_other(store: Store, tmp_path: Path) -> None:
    version = ForeignVersion(1, "/x", folder=folder(tmp_path / "m"))
    done = bring_in(store, "p", Kept([ForeignModel(""), ForeignModel("clf", versions=(version,))]), pack_logged)
    assert (done.models, done.versions) == (1, 1)
    assert len(done.left_out) == 1
