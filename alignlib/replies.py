"""What a server's reply holds: an answer, what is wrong with it, or an error in its place.

Servers that speak OpenAI's protocol differ: in how they end an answer, in reasoning put before it,
in content in parts, in errors sent with status 200, in streams that nobody asked for.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openai import APIStatusError

NO_COMPLETION = "the reply is no chat completion (check base_url; it often ends with /v1)"
ENDED = (None, "", "stop", "eos_token", "eos", "end_turn", "stop_sequence", "complete")
TRANSIENT = (408, 409, 429, 500, 502, 503, 504, 529)  # states that pass
PASSING = ("rate_limit", "overloaded", "timeout", "unavailable", "server_error")
BUDGET = ("insufficient_quota", "credit balance", "billing hard limit", "billing details")
BUDGET += ("exceeded your current quota", "invalid_api_key")
TEXT_PARTS = ("text", "output_text")
# settings that some models refuse, and what is sent in their place, if anything
OPTIONAL = {
    "seed": None,
    "temperature": None,
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
# how servers say that they refuse a setting; and that its value is too large
REFUSING = ("unrecognized", "unknown", "support", "extra", "not allowed", "invalid", "deprecated")
REFUSING += ("unexpected", "not permitted", "only the default", "has to be", "must be")
TOO_LARGE = ("too large", "at most", "maximum", "context length", "less than", "range", "between")
THOUGHT = re.compile(r"\s*(<think>|<thinking>|<thought>|\[THINK\])", re.IGNORECASE)
THOUGHT_END = re.compile(r"</think>|</thinking>|</thought>|\[/THINK\]", re.IGNORECASE)
ALONE = re.compile(rf"^({THOUGHT_END.pattern})\s*$", re.IGNORECASE | re.MULTILINE)


class NoCompletion(ValueError):
    """A reply that is no chat completion."""


@dataclass(frozen=True)
class Reply:
    """An answer, and what is wrong with it ("" for nothing)."""

    answer: str
    problem: str = ""


@dataclass(frozen=True)
class Refusal:
    """An error in place of an answer.

    `passes` if it may be gone at the next try, `needs_user` if it will be with every question.
    """

    message: str
    passes: bool = False
    needs_user: bool = False


def read_reply(completion: object, max_tokens: int) -> Reply | Refusal:
    """The answer in a completion as the client returns it. Raises NoCompletion."""
    body = completion_body(completion)
    choices = body.get("choices")
    if error := body.get("error"):
        return _refusal(error)
    if not choices and (message := body.get("message") or body.get("msg") or body.get("detail")):
        return _refusal({"message": message, "code": body.get("code")})
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise NoCompletion(NO_COMPLETION)
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise NoCompletion(NO_COMPLETION)
    if (error := choices[0].get("error")) or choices[0].get("finish_reason") == "error":
        return _refusal(error or {"message": "the model broke off with an error", "code": 502})
    return _answer(message, choices[0].get("finish_reason"), max_tokens)


def completion_body(completion: object) -> dict:
    """A completion as JSON has it, also of a stream that nobody asked for. Raises NoCompletion."""
    if isinstance(completion, str):
        return _from_stream(completion)
    if isinstance(completion, dict):
        return completion
    try:
        return completion.model_dump(warnings=False)
    except AttributeError as error:
        raise NoCompletion(NO_COMPLETION) from error


def _refusal(error: object) -> Refusal:
    """An error that came with status 200, as proxies send those of the provider behind them."""
    about = error if isinstance(error, dict) else {"message": str(error)}
    code = about.get("code")
    status = int(code) if str(code).isdigit() else 0
    message = str(about.get("message") or "no reason given")
    kind = f"{code} {about.get('type')}".lower()
    passes = status in TRANSIENT or any(word in kind for word in PASSING)
    return Refusal(
        f"{message} ({code})" if code else message, passes, needs_user(status, f"{kind} {message}")
    )


def needs_user(status: int, message: str) -> bool:
    """Whether an error is one that only the user can do something about: budget or key."""
    return status in (401, 402, 403) or any(word in message.lower() for word in BUDGET)


def _answer(message: dict, finish: str | None, max_tokens: int) -> Reply:
    text, thought = without_thought(message_text(message.get("content")))
    thought = thought or bool(message.get("reasoning_content") or message.get("reasoning"))
    if not text and (refusal := _refused(message)):
        return Reply(refusal, "refused")
    if not text:
        spent = thought and finish == "length"
        return Reply("", "empty: all of max_tokens went to reasoning" if spent else "empty")
    if finish not in ENDED and str(finish).lower() not in ENDED:
        return Reply(text, f"unfinished: {finish}")
    over_long = len(text.split()) > max_tokens  # a word is at least a token
    return Reply(text, "over-long" if over_long else "")


def _refused(message: dict) -> str:
    """The words of a refusal, which stand beside the content or in a part of it."""
    content = message.get("content")
    parts = (
        [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    )
    found = [message.get("refusal"), *(part.get("refusal") for part in parts)]
    return next((text.strip() for text in found if isinstance(text, str) and text.strip()), "")


def message_text(content: object) -> str:
    """The text of a message's content, which may be a list of parts; raises NoCompletion."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise NoCompletion(f"the reply's content is {type(content).__name__}, not text")
    parts = [part if isinstance(part, dict) else {"text": part} for part in content]
    texts = [part.get("text") for part in parts if part.get("type", "text") in TEXT_PARTS]
    if not all(isinstance(text, str) for text in texts):
        raise NoCompletion(NO_COMPLETION)
    return "".join(texts)


def without_thought(text: str) -> tuple[str, bool]:
    """The text without the reasoning before it, and whether there was any."""
    end = ALONE.search(text)  # the chat template may have begun the thought
    if end and not re.search(THOUGHT.pattern, text[: end.start()], re.IGNORECASE):
        return text[end.end() :].strip(), True
    found = False
    while THOUGHT.match(text):
        found, end = True, THOUGHT_END.search(text)
        text = text[end.end() :] if end else ""  # it never came to an end
    return text.strip(), found


def _from_stream(text: str) -> dict:
    """A completion put together from the events of a stream. Raises NoCompletion."""
    lines = [line[5:].strip() for line in text.split("\n") if line.startswith("data:")]
    message, finish = dict.fromkeys(("content", "refusal", "reasoning_content"), ""), None
    try:
        events = [json.loads(line) for line in lines if line and line != "[DONE]"]
        for event in events:
            if event.get("error"):
                return {"error": event["error"]}
            for choice in event.get("choices") or []:
                delta = choice.get("delta") or choice.get("message") or {}
                for key in message:
                    message[key] += message_text(delta.get(key))
                finish = choice.get("finish_reason") or finish
    except (ValueError, AttributeError, TypeError) as error:
        raise NoCompletion(NO_COMPLETION) from error
    if not events:
        raise NoCompletion(NO_COMPLETION)
    if finish is None and "[DONE]" not in lines:
        finish = "the stream broke off"
    return {"choices": [{"message": message, "finish_reason": finish}]}


def renamed(request: dict[str, object], refused: set[str]) -> dict[str, object]:
    """The request without the refused settings, or with other names for them."""
    names = {name: OPTIONAL[name] if name in refused else name for name in request}
    return {names[name]: value for name, value in request.items() if names[name]}


def error_text(body: object) -> str:
    """The server's own words in the body of an error, in whichever form it comes."""
    while isinstance(body, (list, dict)):
        if isinstance(body, list):
            body = body[0] if len(body) == 1 else json.dumps(body)
        else:
            found = (
                body.get(key) for key in ("error", "message", "msg", "detail") if body.get(key)
            )
            body = next(found, "") if "loc" not in body else json.dumps(body)
    return str(body or "")


def refused_setting(error: APIStatusError, request: dict[str, object]) -> str | None:
    """The optional setting of a request that an error is about, if it is about one."""
    message = (error_text(error.body) or error.message).lower()
    if not any(word in message for word in REFUSING):
        return None
    words = re.findall(r"\w+", message)
    found = next((name for name in OPTIONAL if name in request and name in words), None)
    is_value = found and OPTIONAL[found] and any(word in message for word in TOO_LARGE)
    return None if is_value else found
