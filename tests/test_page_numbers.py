"""One model's numbers are the same wherever they are told: on three pages, in its card and by the command."""

import json
from pathlib import Path

import pytest
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.testing.v1 import AppTest

from core.checkpoints import CHECKPOINTS, default_id, read_card
from core.evaluate import main as evaluate
from core.measured import number_words
from core.metrics import METRIC_NAMES

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _one_session():
    clear_session_resource_cache("test session id")
    yield
    clear_session_resource_cache("test session id")


def table(app, column):
    """Return the first table that has a column."""
    return next(each.value for each in (*app.dataframe, *app.table) if column in each.value)


def test_every_estimate_of_a_model_is_one_number_on_every_page_and_by_the_command(capsys):
    card = read_card(CHECKPOINTS / default_id())
    threshold = card.operating_point("high_specificity").threshold
    scores = str(CHECKPOINTS / card.id / "scores.csv")
    assert evaluate(["--scores", scores, "--split", "test", "--threshold", repr(threshold), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    told = {words: number_words(*(report[name][key] for key in ("value", "low", "high")))
            for name, words in METRIC_NAMES.items()}  # fmt: skip

    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=120).switch_page("pages/about.py").run()
    about = table(app, "estimate").set_index("estimate")
    results = {row[""]: f"{row['value']} ({row['95% interval']})" for row in table(app, "films").to_dict("records")}
    app.switch_page("pages/threshold.py").run()
    at_threshold = table(app, "estimate").set_index("estimate")
    app.switch_page("pages/compare.py").run()
    app.multiselect(key="models").set_value([card.id]).run()
    app.button_group(key="view").set_value("Numbers").run()
    assert not app.exception
    compared = table(app, card.title).set_index("")[card.title].to_dict()

    assert set(compared) == set(told) == set(METRIC_NAMES.values())
    assert at_threshold["value"].to_dict() == about["value"].to_dict() == told
    cases = report["confusion"]
    n = {"Sensitivity": cases["tp"] + cases["fn"], "PPV": cases["tp"] + cases["fp"], "AUC": report["n"]}
    assert {words: at_threshold["n"][words] for words in n} == n
    assert at_threshold["n"].to_dict() == about["n"].to_dict()
    assert compared == {words: f"{value}, n={about['n'][words]:,}" for words, value in told.items()}
    for words, value in results.items():
        if words in told:
            assert value == told[words]
    for words, name in (("Sensitivity at the upper threshold", "Sensitivity"), ("AUC", "AUC")):
        assert results[words] == told[name]
    assert results["Specificity at the upper threshold"] == told["Specificity"]
