"""The OpenAPI document of the service: its schemas are made of the types of the answers."""

from typing import Any

from pydantic.json_schema import models_json_schema

import spoofkit
from spoofkit.addons.serve.answers import Health, Problem, Scores, Timelines
from spoofkit.addons.serve.uploads import NAME_HEADER
from spoofkit.data.channels import CHANNELS

PROBLEMS = {
    "400": "The form, the body or a parameter is not what was expected, or the recording was cut short.",
    "401": "The key is missing or unknown.",
    "403": "A page of another site made the request.",
    "408": "The recording came too slowly.",
    "413": "The recording is too large or too long.",
    "422": "It is no audio, is damaged, or takes too long to decode.",
    "429": "The service is busy; `Retry-After` says in how many seconds to try again.",
    "501": "The model lacks the head for this.",
}


def describe(
    can_score: bool, can_localize: bool, needs_key: bool, most_bytes: int, most_seconds: float
) -> dict[str, Any]:
    """Describe the service (OpenAPI 3.1).

    Args:
        can_score: Whether the model has an utterance head.
        can_localize: Whether it has a frame head.
        needs_key: Whether a key is required.
        most_bytes: Largest recording.
        most_seconds: Longest recording.
    """
    models = [(model, "serialization") for model in (Health, Problem, Scores, Timelines)]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    limits = f"At most {most_bytes / 1e6:g} MB and {most_seconds:g} s (separate channels together)."
    paths: dict[str, Any] = {}
    if can_score:
        paths["/v1/score"] = {"post": _about_recording("Score a recording.", limits, "Scores", needs_key)}
    if can_localize:
        paths["/v1/localize"] = {
            "post": _about_recording("Find where a recording is spoofed.", limits, "Timelines", needs_key)
        }
    paths["/health"] = {
        "get": {"summary": "Say that the service works, and with what.", "responses": {"200": _of("Health")}}
    }
    components: dict[str, Any] = {"schemas": schemas["$defs"]}
    if needs_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "spoofkit serve",
            "version": spoofkit.__version__,
            "description": "Speech deepfake detection. A higher score means more bona fide.",
        },
        "paths": paths,
        "components": components,
    }


def _about_recording(summary: str, limits: str, schema: str, needs_key: bool) -> dict[str, Any]:
    channels = {
        "name": "channels",
        "in": "query",
        "description": f"Of recordings with several channels: {CHANNELS}. `auto`: each where they differ, else their "
        "mean.",
        "schema": {"type": "string", "default": "auto"},
    }
    name = {
        "name": NAME_HEADER,
        "in": "header",
        "description": "Name of a recording that is the body itself, for the answer; percent-encoded UTF-8.",
        "schema": {"type": "string"},
    }
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {"type": "object", "required": ["file"], "properties": {"file": file}}
    return {
        "summary": summary,
        "description": f"Any common audio format, as the body or as the one file of a form. {limits} Nothing is kept.",
        "parameters": [channels, name],
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {}, "multipart/form-data": {"schema": form}},
        },
        "responses": {"200": _of(schema)}
        | {
            status: {"description": text, "content": {"application/problem+json": _schema("Problem")}}
            for status, text in PROBLEMS.items()
            if needs_key or status != "401"
        },
    } | ({"security": [{"key": []}]} if needs_key else {})


def _of(schema: str) -> dict[str, Any]:
    return {"description": f"See {schema}.", "content": {"application/json": _schema(schema)}}


def _schema(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}
