"""Asking an upstream for a client of `serve.py`: a completion, or what the client is told."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from .place import DataError
from .remote import is_loopback
from .replies import NoCompletion, completion_body, error_text, message_text
from .texts import whole_characters


class Refused(Exception):
    """A request that gets an error in place of an answer."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, {k.replace("_", "-"): v for k, v in headers.items()}


@dataclass
class Asked:
    """A server that speaks OpenAI's protocol; failures become errors that say what is wrong."""

    url: str
    key: str = ""
    timeout: float = 120.0  # seconds, for one answer with all its repetitions
    retries: int = 2

    def __post_init__(self) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        if not self.url.startswith(("http://", "https://")):
            raise DataError(f"{self.url!r} is no address; write it with http:// or https://")
        options = {"timeout": self.timeout, "max_retries": self.retries}
        if is_loopback(urlsplit(self.url).hostname or ""):  # which a proxy cannot reach
            options["http_client"] = DefaultAsyncHttpxClient(trust_env=False)
        self._client = AsyncOpenAI(api_key=self.key or "none", base_url=self.url, **options)

    async def __call__(self, body: dict) -> dict:
        """The completion of a request, with at least one choice. Raises Refused."""
        import openai

        try:
            async with asyncio.timeout(self.timeout):
                found = await self._client.post("/chat/completions", cast_to=object, body=body)
            return _completed(found, body)
        except TimeoutError:
            raise Refused(502, f"the upstream took longer than {self.timeout:g} s") from None
        except openai.APIStatusError as error:
            raise _passed_on(error) from None
        except openai.APIConnectionError as error:
            raise Refused(502, f"no connection to the upstream ({error})") from None
        except UnicodeEncodeError:
            raise Refused(400, "a text of the body holds half a character") from None
        except (NoCompletion, openai.OpenAIError, ValueError) as error:
            raise Refused(502, f"the upstream's reply is no chat completion ({error})") from None


def _completed(found: object, body: dict) -> dict:
    """An upstream's reply with all that a client needs. Raises NoCompletion."""
    completion = completion_body(found)
    choices = completion.get("choices")
    if completion.get("error") or not isinstance(choices, list) or not choices:
        raise NoCompletion(error_text(completion)[:200] or "no choices")
    for choice in choices:
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise NoCompletion("a choice without a message")
        message = choice["message"]
        text = message_text(message.get("content"))
        if text:  # half a character can be neither read nor sent
            message["content"] = whole_characters(text)
    made = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion"}
    return made | {"created": int(time.time()), "model": body["model"]} | completion


def _passed_on(error) -> Refused:
    """What a client can act on is passed on as it is; all else is the upstream's failure."""
    message = error_text(error.body) or error.message
    if error.status_code == 429:
        wait = error.response.headers.get("retry-after", "1")
        return Refused(429, message, retry_after=wait)
    if error.status_code in (400, 404, 413, 422):
        return Refused(error.status_code, message)
    return Refused(502, f"the upstream refused with status {error.status_code} ({message})")
