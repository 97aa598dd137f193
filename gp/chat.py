"""A conversation about images: what no question changes is computed once, and every answer prunes for its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from transformers.utils import ModelOutput

from gp import calls
from gp.answer import Answer
from gp.asking import check_questions, conversation_inputs, picture_entry, read_answers, refuse_markers
from gp.backbones.originals import Originals
from gp.engine.conversation import Conversation
from gp.engine.generation import add_masks
from gp.images import read_images
from gp.pruners import Pruner


class Chat:
    """Made by `GlimpseModel.chat`; see there.

    Attributes:
        messages: the conversation so far, as the processor's chat template takes it.
    """

    def __init__(
        self,
        model: Any,  # a GlimpseModel: its file is above this one
        images: Any = (),
        system: str | None = None,
        pruner: str | Pruner | None = None,
        allow_urls: bool = False,
        **defaults: Any,
    ) -> None:
        if model.processor is None:
            raise ValueError("chat needs a processor: load the model with gp.from_pretrained, or set model.processor")
        if system is not None and not isinstance(system, str):
            raise TypeError(f"system must be text, got {type(system).__name__}")
        self._model, self._allow_urls, self._defaults = model, allow_urls, defaults
        # what a turn says goes over these, as in `generate` over the model's: another kind of budget replaces theirs
        self._options = calls.take_options(model.options, defaults.pop("options", None), defaults, 1)
        self._talk = Conversation(model.backbone, model.find_pruner(pruner, calls.take_settings(pruner, defaults)))
        self._pictures: list[Image] = []
        self._waiting = read_images(images, allow_urls)  # until the next question
        self.messages: list[dict[str, Any]] = []
        if system is not None:
            self.messages.append({"role": "system", "content": [{"type": "text", "text": system}]})

    def ask(self, question: str, images: Any = (), **kwargs: Any) -> Answer:
        """Asks the next question.

        Args:
            question: text.
            images: that come with it, before it.
            kwargs: pruning options of this turn, and what `generate` takes.

        Returns:
            The answer; its masks are of all images of the conversation. It is a part of the conversation from now on.

        Raises:
            TypeError, ValueError: like `GlimpseModel.ask`; the conversation stays as it was.
        """
        if not isinstance(question, str):
            raise TypeError(f"question must be text, got {type(question).__name__}")
        model, processor = self._model, self._model.processor
        refuse_markers(check_questions(question), model.backbone.processor.markers(processor))
        new = [*self._waiting, *read_images(images, self._allow_urls)]
        content = [*map(picture_entry, new), {"type": "text", "text": question}]
        messages, pictures = [*self.messages, {"role": "user", "content": content}], [*self._pictures, *new]
        inputs = conversation_inputs(processor, messages)
        how = {"do_sample": False, "max_new_tokens": 64, **self._defaults, **kwargs, "return_dict_in_generate": True}
        options, seed = how.pop("options", None), how.pop("seed", 0)
        prompt = calls.take_inputs(model.backbone, inputs, "chat")
        chosen = calls.take_options(model.options, self._options if options is None else options, how, 1)
        calls.refuse(model.backbone, how)
        done = self._talk.turn(prompt, chosen, seed, originals=Originals(processor, pictures))
        out = model.decode(prompt["input_ids"], done, consume=True, **how)
        assert isinstance(out, ModelOutput)  # as asked for
        add_masks(out, done)
        frames = [model.backbone.processor.frame(processor, *picture.size) for picture in pictures]
        (answer,) = read_answers(processor, out, prompt["input_ids"].shape[1], pictures, frames)
        reply = {"role": "assistant", "content": [{"type": "text", "text": answer.text}]}
        self.messages, self._pictures, self._waiting = [*messages, reply], pictures, []
        return answer

    @property
    def images(self) -> Sequence[Image]:
        """All pictures that were shown, in order."""
        return tuple(self._pictures)
