"""The page of one threshold without a browser: on which studies a rule chooses, limits from elsewhere, kept figures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.testing.v1 import AppTest

from core.checkpoints import CHECKPOINTS, default_id, read_scores
from core.figures import INK, Shown, benefit_figure, histogram_figure, rates_figure, roc_figure
from core.figures.moving import move_line, move_point
from core.measured import choice_words, rule_words
from core.metrics import net_benefit, resample, roc_band, roc_curve, sweep_thresholds
from core.values import Checkpoint
from pages.parts.scored import Bench
from tests.test_metrics import random_scores

ROOT = Path(__file__).parent.parent
TOO_GOOD = "A threshold chosen on the studies that it is then measured on looks better than it is."


@pytest.fixture
def app():
    # All AppTests are one session to Streamlit; what belongs to a session must go between them.
    clear_session_resource_cache("test session id")
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=120).switch_page("pages/threshold.py").run()
    yield app
    clear_session_resource_cache("test session id")


def captions(app):
    return "\n".join(caption.value for caption in app.caption)


def upload(app, rows):
    """Add a table of (split, label, probability), every study of a patient of its own, and choose it."""
    lines = ["split,study_id,patient_id,label,probability"]
    lines += [f"{split},s{n},p{n},{label},{p}" for n, (split, label, p) in enumerate(rows)]
    lines = lines if rows[0][0] else [line.partition(",")[2] for line in lines]
    app.file_uploader(key="score-tables").set_value([("mine.csv", "\n".join(lines).encode(), "text/csv")]).run()
    app.selectbox(key="model").set_value("uploaded: mine").run()
    assert not app.exception
    return app


# On validation the classes part between 0.3 and 0.4 (Youden: 0.4), on test between 0.6 and 0.7 (Youden: 0.7).
VALID = [("valid", 0, p) for p in (0.1, 0.2, 0.3)] + [("valid", 1, p) for p in (0.4, 0.5, 0.6)]
TEST = [("test", 0, p) for p in (0.2, 0.5, 0.6)] + [("test", 1, p) for p in (0.7, 0.8, 0.9)]


def test_a_rule_chooses_on_validation_unless_told_otherwise_and_says_so(app):
    upload(app, VALID + TEST)
    assert app.radio(key="rule-on").options == ["the 6 validation studies", "these 6 test studies"]
    assert TOO_GOOD not in captions(app), "nothing too good is about to be chosen"
    app.button(key="apply-rule").click().run()
    assert app.number_input(key="threshold-exact").value == 0.4
    told = captions(app)
    assert "the largest sum of sensitivity and specificity on the 6 validation studies" in told
    assert "measured here on 6 test studies" in told
    assert TOO_GOOD not in told
    assert app.metric[1].value == "33.3%", "measured on the test studies: one of three lies below 0.4"

    app.radio(key="rule-on").set_value("shown").run()
    assert TOO_GOOD in captions(app), "said beside the rule before anything is chosen"
    app.button(key="apply-rule").click().run()
    assert app.number_input(key="threshold-exact").value == 0.7
    assert f"on these 6 test studies. {TOO_GOOD}" in captions(app)
    app.slider(key="threshold").set_value(0.65).run()
    assert "Chosen for" not in captions(app), "moved by hand"


def test_studies_or_single_films_are_measured_where_a_table_has_both(app):
    assert "unit" not in {group.key for group in app.button_group}, "the model's own table has studies alone"
    lines = ["film_id,study_id,patient_id,label,probability"]
    for n in range(24):
        lines += [
            f"{film},s{n},p{n // 2},{n % 2},{0.3 + 0.3 * (n % 2) + shift}" for film, shift in enumerate((-0.2, 0.3))
        ]
    app.file_uploader(key="score-tables").set_value([("mine.csv", "\n".join(lines).encode(), "text/csv")]).run()
    app.selectbox(key="model").set_value("uploaded: mine").run()
    assert app.button_group(key="unit").options == ["studies", "films"]
    assert [metric.value for metric in app.metric[:2]] == ["100.0%", "100.0%"], "means of 0.35 and 0.65"
    app.button_group(key="unit").set_value("film").run()
    assert not app.exception
    assert [metric.value for metric in app.metric[:2]] == ["50.0%", "50.0%"], "one film of two lies beyond 0.5"
    assert "n=24" in captions(app), "films in the denominator"
    assert "Intervals are over patients" in app.info[0].value
    listed = next(table.value for table in app.dataframe if "wrong by" in table.value)
    assert len(listed) == 24
    assert {"s1 / 0", "s0 / 1"} <= set(listed["film"])
    app.button_group(key="unit").set_value("study").run()
    assert [metric.value for metric in app.metric[:2]] == ["100.0%", "100.0%"]


def test_both_levels_of_a_table_that_is_taken_away_are_forgotten():
    bench = Bench("session")
    house = ("model", 1)
    bench.read = {house: {}, "one": {}, "films of one": {}, "two": {}, "films of two": {}}
    bench.uploads = {"One": "one", "Two": "two"}
    bench.forget("one")
    assert bench.uploads == {"Two": "two"}
    assert list(bench.read) == [house, "two", "films of two"]


def table(rows):
    lines = [
        "study_id,patient_id,label,probability",
        *(f"s{n},p{n},{label},{p}" for n, (_, label, p) in enumerate(rows)),
    ]
    return "\n".join(lines).encode()


def test_a_table_stays_while_other_pages_are_looked_at_and_goes_when_it_is_removed(app):
    app.file_uploader(key="score-tables").set_value([("mine.csv", table(TEST), "text/csv")]).run()
    app.switch_page("pages/about.py").run()
    app.switch_page("pages/compare.py").run()
    assert "uploaded: mine" in app.multiselect(key="models").options or "mine" in app.multiselect(key="models").options
    (drop,) = [button for button in app.button if button.label == "Remove mine"]
    drop.click().run()
    assert not app.exception
    assert not [button for button in app.button if button.label == "Remove mine"]
    assert "mine" not in str(app.multiselect(key="models").options)


def test_a_threshold_goes_with_the_studies_that_it_was_chosen_on(app):
    """Two tables of one name: where the first is taken away, the second keeps its name and its own threshold."""
    other = [("", label, round(1 - p / 2, 3)) for _, label, p in TEST]
    tables = [("mine.csv", table(TEST), "text/csv"), ("mine.csv", table(other), "text/csv")]
    app.file_uploader(key="score-tables").set_value(tables).run()
    app.selectbox(key="model").set_value("uploaded: mine").run()
    app.button(key="apply-rule").click().run()
    assert app.number_input(key="threshold-exact").value == 0.7
    assert "Chosen for the largest sum" in captions(app)
    app.file_uploader(key="score-tables").set_value([]).run()
    app.file_uploader(key="score-tables").set_value([("mine.csv", table(other), "text/csv")]).run()
    app.selectbox(key="model").set_value("uploaded: mine").run()
    assert "Chosen for" not in captions(app)
    assert app.number_input(key="threshold-exact").value == 0.5
    assert "Patients with the finding (%)" in {slider.label for slider in app.slider}, "a table does not say of what"


def test_without_validation_studies_a_rule_says_what_its_choice_is_worth(app):
    upload(app, [("", label, p) for _, label, p in TEST])
    assert not app.radio
    assert "no scores of validation studies to choose on" in captions(app)
    assert TOO_GOOD in captions(app)
    app.button(key="apply-rule").click().run()
    assert f"on these 6 studies. {TOO_GOOD}" in captions(app)


def test_a_models_own_validation_studies_are_what_a_rule_chooses_on(app):
    scores = {each.split: each for each in read_scores(CHECKPOINTS / default_id())}
    n = len(scores["valid"].study_ids)
    app.selectbox(key="rule").set_value("specificity").run()
    app.number_input(key="wanted").set_value(0.9).run()
    app.button(key="apply-rule").click().run()
    at = app.number_input(key="threshold-exact").value
    assert f"Chosen for a specificity of at least 90% on the {n} simulated validation studies" in captions(app)
    passed = {split: np.mean(each.probabilities[each.labels == 0] < at) for split, each in scores.items()}
    assert passed["valid"] >= 0.9
    assert app.metric[1].value == f"{passed['test']:.1%}"
    app.text_input(key="limits-name").set_value("mine").run()
    assert TOO_GOOD not in captions(app), "what is saved was not chosen on test studies"
    app.slider(key="threshold").set_value(0.5).run()
    assert TOO_GOOD in captions(app), "moved by hand while looking at test studies"


def test_who_chose_a_limit_on_what_is_kept_with_it():
    scores = random_scores(1, n=40)
    card = Checkpoint("m", "M", "fracture", "efficientnetb0", "top_activation", 224)
    told = choice_words(scores, card, "upper", f"for {rule_words('sensitivity', 0.975)}")
    assert told == "the upper one chosen for a sensitivity of at least 97.5% on 40 validation studies"


def zones(app):
    return next(table.value for table in app.dataframe if "answer" in table.value.columns)


def test_limits_of_a_table_from_elsewhere_come_from_its_own_validation_studies(app):
    # Of 20 positives 19 reach 0.3 (sensitivity 0.95), of 20 negatives 19 lie below 0.6 (specificity 0.95).
    valid = [("valid", 1, 0.1)] + [("valid", 1, 0.3)] + [("valid", 1, 0.9)] * 18
    valid += [("valid", 0, 0.2)] * 18 + [("valid", 0, 0.5), ("valid", 0, 0.6)]
    test = [("test", 1, 0.25), ("test", 1, 0.45), ("test", 1, 0.7), ("test", 1, 0.8)]
    test += [("test", 0, 0.1), ("test", 0, 0.4), ("test", 0, 0.65), ("test", 0, 0.2)]
    upload(app, valid + test)
    table = zones(app).set_index("answer")
    assert "None seen below 0.3000, suspected from 0.6000 on" in captions(app)
    assert "the table's own 40 validation studies" in captions(app)
    assert table["of all studies"].str.extract(r"^([\d.]+%)")[0].tolist() == ["37.5%", "25.0%", "37.5%"]
    positive = table["of these with a positive label"].str.extract(r"^([\d.]+%).*n=(\d+)")
    assert positive[0].tolist() == ["33.3%", "50.0%", "66.7%"]
    assert positive[1].tolist() == ["3", "2", "3"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("", label, p) for _, label, p in TEST], "this table has none (rows that say valid in a column named split)"),
        ([("valid", 1, 0.3), ("valid", 1, 0.6), *TEST], "there is only one class"),
    ],
)
def test_where_a_table_gives_no_limits_the_page_says_why(app, rows, why):
    upload(app, rows)
    assert not [table for table in app.dataframe if "answer" in table.value.columns]
    assert why in captions(app)


def test_a_figure_that_follows_is_the_figure_drawn_anew():
    model = resample(random_scores(4, n=150), 50)
    benefit, curve = Shown("A", INK, net_benefit(model)), (roc_curve(model.scores), roc_band(model))
    drawings = {
        "rates": lambda at: rates_figure(sweep_thresholds(model), at),
        "histogram": lambda at: histogram_figure(model.scores, at),
        "benefit": lambda at: benefit_figure([benefit], at),
        "roc": lambda at: roc_figure([Shown("A", INK, *curve, (at, 1 - at))]),
    }
    for name, draw in drawings.items():
        kept, anew = draw(0.2), draw(0.7)
        assert kept.to_json() != anew.to_json()
        moved = move_point(kept, (0.7, 1 - 0.7)) if name == "roc" else move_line(kept, 0.7)
        assert json.loads(moved.to_json()) == json.loads(anew.to_json()), name


def test_figures_that_are_kept_follow_what_they_are_of(app):
    def drawn(key):
        return json.loads(next(chart.proto.spec for chart in app.get("plotly_chart") if key in chart.proto.id))

    names = [trace.get("name") for trace in drawn("figure-rates")["data"]]
    app.multiselect(key="rates").set_value(["kappa"]).run()
    assert [name for name in (trace.get("name") for trace in drawn("figure-rates")["data"]) if name] != names
    before = drawn("figure-benefit")["data"][-1]["y"]
    app.slider(key="prevalence").set_value(5.0).run()
    assert drawn("figure-benefit")["data"][-1]["y"] != before
    upload(app, TEST)
    assert re.search("uploaded|mine", json.dumps(drawn("figure-roc")["data"][-1]["hovertemplate"]))
