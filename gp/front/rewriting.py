"""A request's pictures taken out, and thumbnails and crops put in; everything else of it stays as it came."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from gp.asking import picture_entry
from gp.front.looking import Look
from gp.front.options import FrontConfig
from gp.pictures import BadPicture, read_picture
from gp.serve.pictures import CODE, check_header, decode_data_url
from gp.serve.refusing import bad

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def take_pictures(messages: Any, config: FrontConfig) -> list[Image.Image]:
    """The pictures of a conversation, in order.

    Raises:
        Refused: no list of messages, more pictures than allowed, or one that is no data url of a readable file.
    """
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise bad("messages", "expected a list of objects")
    pictures: list[Image.Image] = []
    for where, part in image_parts(messages):
        if len(pictures) == config.limits.images:
            raise bad(where, f"more than {config.limits.images} images in a request")
        url = part["image_url"]["url"] if isinstance(part["image_url"], dict) else part["image_url"]
        if not isinstance(url, str):
            raise bad(where, "expected {'url': 'data:image/...;base64,...'}", CODE)
        content = decode_data_url(url, where)
        check_header(content, where, config.limits.image_megapixels)
        try:
            pictures.append(read_picture(content))
        except BadPicture as error:
            raise bad(where, str(error), CODE) from error
    return pictures


def image_parts(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Key and part of each picture of a conversation; Refused for a part that is none."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for k, message in enumerate(messages):
        for n, part in enumerate(parts_of(message)):
            if isinstance(part, dict) and part.get("type") == "image_url":
                where = f"messages[{k}].content[{n}].image_url"
                url = part.get("image_url")
                if not isinstance(url, str) and not (isinstance(url, dict) and "url" in url):
                    raise bad(where, "expected {'url': 'data:image/...;base64,...'}", CODE)
                found.append((where, part))
    return found


def parts_of(message: Mapping[str, Any]) -> list[Any]:
    """The parts of a message's content; of one that is text alone, none."""
    content = message.get("content")
    return content if isinstance(content, list) else []


def as_looker_sees(messages: Sequence[Mapping[str, Any]], pictures: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """The conversation up to the last question, as a chat template takes it: texts and pictures, no tools."""
    left, seen = iter(pictures), []
    for message in messages:
        role, content = ROLES.get(str(message.get("role"))), message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else []
        for part in parts_of(message):
            if isinstance(part, dict) and part.get("type") == "image_url":
                parts.append(picture_entry(next(left)))
            elif isinstance(part, dict) and isinstance(part.get("text"), str):
                parts.append({"type": "text", "text": part["text"]})
        if role and parts:
            seen.append({"role": role, "content": parts})
    while seen and seen[-1]["role"] != "user":
        seen.pop()
    return seen


def put_look(messages: Sequence[Mapping[str, Any]], look: Look) -> list[dict[str, Any]]:
    """The conversation with a thumbnail for each picture, and all crops behind the last one, where `zoom` has them."""
    thumbnails = iter(look.thumbnails)
    left = len(look.thumbnails)
    rewritten = []
    for message in messages:
        parts: list[Any] = []
        for part in parts_of(message):
            if not (isinstance(part, dict) and part.get("type") == "image_url"):
                parts.append(part)
                continue
            parts.append(as_part(next(thumbnails)))
            left -= 1
            if left == 0:
                parts += map(as_part, look.crops)
        rewritten.append({**message, "content": parts} if parts else dict(message))
    return rewritten


def as_part(image: Image.Image) -> dict[str, Any]:
    """A picture as a message's part; PNG, because nothing may be lost a second time."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()},
    }
