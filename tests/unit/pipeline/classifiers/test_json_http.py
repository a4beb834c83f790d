from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
import pytest
from scripted_json import REQUEST, pixels
from werkzeug import Response

from pipeline.black_box import identify
from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers import build
from pipeline.config_loading import load_config, nest, parse_value
from pipeline.errors import ClassifierAwayError, ClassifierError, ConfigError

SCORES = [[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]]
LABELS = ("red", "green", "blue")


@pytest.fixture
def answering(httpserver):
    """Lets the server answer with JSON; gives the fields of a config for it, and what it was asked."""

    def answer(value, status=200, headers=None):
        asked = []

        def handler(request):
            request.get_data()
            request.pictures = [(file.filename, pixels(file.read())) for file in request.files.getlist("files")]
            asked.append(request)
            data = value if isinstance(value, (str, bytes)) else json.dumps(value)
            return Response(data, status, headers or {"Content-Type": "application/json"})

        httpserver.expect_request("/score", method="POST").respond_with_handler(handler)
        return {"protocol": "json-http", "url": httpserver.url_for("/score"), "request": REQUEST}, asked

    return answer


def test_a_batch_travels_by_the_template_and_the_answers_are_found_by_the_path(ask, answering, coloured):
    fields, asked = answering({"predictions": [{"scores": row} for row in SCORES]})
    images = coloured(1, 0)
    answers = ask(images, **fields, result="predictions[*].scores")
    assert answers.classes.tolist() == [1, 0]
    assert answers.scores.tolist() == np.float32(SCORES).tolist()
    (request,) = asked
    assert request.content_type == "application/json"
    sent = [pixels(base64.b64decode(one["b64"])) for one in request.json["instances"]]
    assert np.array_equal(np.stack(sent), images)


@pytest.mark.parametrize(
    ("reply", "fields", "classes"),
    [
        ([2, 0], {}, [2, 0]),
        ({"out": [{"class": 2}, {"class": 1}]}, {"result": "out[*].class"}, [2, 1]),
        (["blue", "red"], {"labels": LABELS}, [2, 0]),
        (
            {"predictions": [{"names": ["blue", "red"], "conf": [0.8, 0.1]}, {"names": ["green"], "conf": [0.9]}]},
            {"labels": LABELS, "result": "predictions[*].{labels: names, scores: conf}"},
            [2, 1],
        ),
        ([[0, 1, 0], [1, 0, 0]], {}, [1, 0]),  # certain scores, by a language that writes 1.0 as 1
    ],
)
def test_classes_come_by_index_by_name_and_by_scores(ask, answering, coloured, reply, fields, classes):
    endpoint, _ = answering(reply)
    answers = ask(coloured(1, 0), **endpoint, **fields)
    assert answers.classes.tolist() == classes
    assert answers.errors == [None, None]


def test_scores_of_the_best_classes_stand_where_labels_says(ask, answering, coloured):
    endpoint, _ = answering([{"labels": ["blue", "red"], "scores": [0.8, 0.125]}])
    answers = ask(coloured(1), **endpoint, labels=LABELS)
    assert answers.scores.tolist() == [[0.125, 0, np.float32(0.8)]]


def test_where_the_image_stands_in_no_list_a_request_is_about_one(ask, answering, coloured):
    endpoint, asked = answering({"label": "green"})
    fields = {**endpoint, "request": {"image": "data:image/png;base64,$image", "k": 1}, "result": "label"}
    config = ClassifierConfig(**fields, labels=LABELS)
    assert build(config).max_batch == 1
    assert ask(coloured(1), **fields, labels=LABELS).classes.tolist() == [1]
    sent = asked[0].json
    assert sent["k"] == 1
    assert pixels(base64.b64decode(sent["image"].removeprefix("data:image/png;base64,"))).shape == (8, 8, 3)


def test_a_template_may_number_the_images(ask, answering, coloured):
    endpoint, asked = answering([0, 0, 0])
    table = {"input_data": {"columns": ["image"], "index": ["$index"], "data": [["$image"]]}}
    ask(coloured(0, 0, 0), **{**endpoint, "request": table})
    sent = asked[0].json["input_data"]
    assert sent["index"] == [0, 1, 2]
    assert [len(row) for row in sent["data"]] == [1, 1, 1]


def test_numbers_travel_as_nested_lists(ask, answering, coloured):
    endpoint, asked = answering([0, 1])
    numbers = {"dtype": "float32", "layout": "NHWC", "size": 4}
    ask(coloured(0, 1), **{**endpoint, "request": {"instances": ["$image"]}}, input=numbers)
    sent = np.array(asked[0].json["instances"])
    assert sent.shape == (2, 4, 4, 3)
    assert sent[1, 0, 0].tolist() == pytest.approx([0, 200 / 255, 0])


def test_a_form_holds_files_and_fields(ask, answering, coloured):
    endpoint, asked = answering([0, 1])
    images = coloured(0, 1)
    ask(images, **{**endpoint, "content": "multipart", "request": {"files": ["$image"], "top": 3}})
    (request,) = asked
    assert request.content_type.startswith("multipart/form-data; boundary=")
    assert request.form["top"] == "3"
    assert [name for name, _ in request.pictures] == ["0.png", "1.png"]
    assert np.array_equal(np.stack([picture for _, picture in request.pictures]), images)


def test_an_image_may_be_the_whole_request(ask, answering, coloured):
    endpoint, asked = answering({"scores": [0.25, 0.75]})
    del endpoint["request"]
    answers = ask(coloured(2), **endpoint, content="image", content_type="application/x-image", result="scores")
    assert answers.classes.tolist() == [1]
    assert asked[0].content_type == "application/x-image"
    assert pixels(asked[0].get_data()).shape == (8, 8, 3)


def test_a_null_costs_its_own_image(ask, answering, coloured):
    endpoint, _ = answering([[0.5, 0.25], None])
    answers = ask(coloured(0, 1), **endpoint)
    assert answers.classes.tolist() == [0, -1]
    assert answers.errors == [None, "the answer is null"]
    assert np.isnan(answers.scores[1]).all()


@pytest.mark.parametrize(
    ("reply", "fields", "said"),
    [
        ("<html>Sign in</html>", {}, "expected a reply in JSON, found <html>Sign in</html>"),
        (
            {"predictions": SCORES},
            {"result": "outputs"},
            r"expected a list of answers at classifier.result 'outputs', found nothing there; "
            r"the reply is \{\"predictions\"",
        ),
        ({"predictions": SCORES}, {}, "the reply's top .classifier.result is not set., found"),
        ([SCORES[0]], {}, "expected 2 answers at the reply's top .*, one an image, found 1"),
        ([[7, 5, 3], [7, 3, 1]], {}, "whole numbers, which may be scores or the best classes"),
        ([[1.5], [0.5]], {}, "expected for each image a list of 2 scores or more"),
        ([[0.1, 0.2], [0.1, 0.2, 0.3]], {}, "lists of 2 and of other numbers of scores"),
        (["cat", "dog"], {}, "found 'cat'. If that is a class's name, set classifier.labels"),
        ([{"labels": ["cat"], "scores": [1.0]}] * 2, {}, "Set classifier.labels to all names"),
        (
            [{"labels": ["cat"], "scores": [1.0]}] * 2,
            {"labels": LABELS},
            '"cat", which classifier.labels doesn\'t name',
        ),
        ([[0.1, 0.9]] * 2, {"labels": LABELS}, "of the 3 classes .* by classifier.result"),
        ([True, False], {}, "expected for each image a list of 2 scores or more"),
        ([None, None], {}, "only null"),
        ({"a": 1}, {"result": "sort(a)"}, "invalid type for value: 1"),
    ],
)
def test_a_reply_without_answers_is_refused_with_what_was_expected_and_what_came(
    ask, answering, coloured, reply, fields, said
):
    endpoint, _ = answering(reply)
    with pytest.raises(ClassifierError, match=said) as caught:
        ask(coloured(1, 0), **endpoint, **fields)
    assert f"classifier at {endpoint['url']} (json-http)" in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"request": None}, "json-http needs `request`, with .image"),
        ({"result": "predictions[", "request": REQUEST}, "expected a JMESPath, found 'predictions\\['"),
        ({"output": "scores", "request": REQUEST}, "json-http has no `output`; `result` says"),
        ({"request": {"image": "image"}}, "expected .image where the image stands, found none"),
        ({"content": "multipart", "request": {"a": {"b": "$image"}}}, "a form has fields of text"),
        ({"content": "npy", "input": {"dtype": "bytes"}}, "content npy holds numbers, but input.dtype is bytes"),
        ({"content": "image", "input": {"mean": [0.5]}}, "input.mean and input.std need float32"),
        ({"request": REQUEST, "url": "http://u:p@h/score"}, "no user name or password"),
    ],
)
def test_settings_that_can_not_work_are_refused_before_anything_is_sent(fields, said):
    with pytest.raises((ClassifierError, ValueError), match=said):
        build(ClassifierConfig(**{"protocol": "json-http", "url": "http://127.0.0.1:9/score", **fields}))


def test_another_protocol_has_no_template():
    with pytest.raises(ConfigError, match="protocol open-inference-v2 has no `request`"):
        load_config(None, nest({"input": "a", "output": "b", **flags("open-inference-v2", request={"a": "$image"})}))


def flags(protocol, **more):
    return {"classifier.protocol": protocol, "classifier.url": "http://127.0.0.1:9", "classifier.model": "m"} | {
        f"classifier.{name}": value for name, value in more.items()
    }


def test_headers_come_from_the_environment_and_are_seen_by_the_server_alone(
    ask, answering, coloured, monkeypatch, caplog
):
    monkeypatch.setenv("VISION_KEY", "s3cr3t-key")
    endpoint, asked = answering('{"error": "bad key s3cr3t-key"}', 401)
    fields = {**endpoint, "headers": {"X-Api-Key": "$VISION_KEY"}}
    config = ClassifierConfig(**fields)
    with pytest.raises(ClassifierError, match=r"status 401: bad key \*\*\*") as caught:
        ask(coloured(1), **fields)
    assert asked[0].headers["X-Api-Key"] == "s3cr3t-key"
    facts = identify(config)
    for text in (str(caught.value), repr(config), config.model_dump_json(), repr(facts), caplog.text):
        assert "s3cr3t" not in text


def test_a_header_of_a_variable_that_is_not_set_is_named_and_a_wrong_one_is_not_shown(monkeypatch):
    monkeypatch.delenv("VISION_KEY", raising=False)
    endpoint = {"input": "a", "output": "b", **flags("json-http", request=REQUEST)}
    with pytest.raises(ConfigError, match="expected the environment variable VISION_KEY for the header 'X-Api-Key'"):
        load_config(None, nest({**endpoint, "classifier.headers": {"X-Api-Key": "$VISION_KEY"}}))
    with pytest.raises(ConfigError) as caught:
        load_config(None, nest({**endpoint, "classifier.headers": ["s3cr3t"]}))
    assert "s3cr3t" not in str(caught.value)


def test_headers_and_templates_come_as_flags_and_by_the_environment():
    environment = {
        "ZIPSTAGE_CLASSIFIER__HEADERS": "{X-Api-Key: s3cr3t}",
        "ZIPSTAGE_CLASSIFIER__REQUEST": "{instances: [{b64: $image}]}",
    }
    values = {"input": "a", "output": "b", "classifier": {"protocol": "json-http", "url": "http://127.0.0.1:9/score"}}
    config = load_config(None, values, environment).classifier
    assert config.headers["X-Api-Key"].get_secret_value() == "s3cr3t"
    assert config.request == REQUEST
    assert parse_value("{X-Api-Key: $KEY}", "classifier.headers") == {"X-Api-Key": "$KEY"}


def test_what_decides_the_answers_decides_whose_they_are():
    base = {"protocol": "json-http", "url": "http://127.0.0.1:9/score", "request": REQUEST}
    others = [
        {},
        {"request": {"instances": ["$image"]}},
        {"result": "predictions"},
        {"labels": LABELS},
        {"content": "multipart", "request": {"file": "$image"}},
        {"url": "http://127.0.0.1:9/other"},
        {"content_type": "application/jsonlines"},
        {"input": {"size": 32}},
    ]
    names = [identify(ClassifierConfig(**{**base, **other})).name for other in others]
    assert len(set(names)) == len(names)
    same = {"headers": {"X-Api-Key": "k"}, "rate_per_s": 1, "max_queries": 10, "price_per_1000": 1.5, "batch": 7}
    assert identify(ClassifierConfig(**base, **same)).name == names[0]


def test_an_endpoint_that_is_away_is_named_with_its_protocol(ask, coloured):
    fields = {"protocol": "json-http", "url": "http://127.0.0.1:9/score", "request": REQUEST, "attempts": 2}
    with pytest.raises(ClassifierAwayError, match=r"at http://127.0.0.1:9/score \(json-http\): .*2 attempts"):
        ask(coloured(1), **fields)


def test_it_says_how_it_asks_and_reads():
    fields = {"protocol": "json-http", "url": "http://127.0.0.1:9/score", "request": REQUEST, "result": "predictions"}

    async def understood():
        async with build(ClassifierConfig(**fields, batch=8)) as classifier:
            return classifier.understood()

    lines = asyncio.run(understood()).lines
    assert lines["sent"] == "json, up to 8 images"
    assert lines["output"] == "JSON at 'predictions'"
