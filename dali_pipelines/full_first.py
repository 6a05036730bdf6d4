"""A batch's coarse images made from its full ones, on the device: what preprocess.coarse does, for batches.

In:  requests of a group of images, first for coarse levels, then for the levels of the pictures.
Out: what the decoder would give for each; where level 0 is needed in any case, it is decoded at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dali_pipelines.decoder import DaliDecoder, Decoded
from preprocess.coarse import first_level
from preprocess.config import ResultConfig
from preprocess.decode import Request
from preprocess.records import Mammogram
from preprocess.stored import Samples


def first(request: Request, config: ResultConfig) -> Request:
    """What is decoded for a request."""
    return replace(request, level=first_level(request.instance, request.level, config))


@dataclass(slots=True)
class FullFirst:
    """A decoder for one group of images, for as long as they are on their way; for one thread."""

    decoder: DaliDecoder
    config: ResultConfig
    _full: dict[int, Mammogram] = field(default_factory=dict, repr=False)
    """By the identity of the instance, which the Mammogram keeps alive."""

    def decode_batch(self, requests: Sequence[Request]) -> list[Decoded]:
        """As DaliDecoder.decode_batch. Raises RuntimeError: the device has failed for good."""
        known = [None if one.level else self._full.pop(id(one.instance), None) for one in requests]
        asked = [first(one, self.config) for one, full in zip(requests, known, strict=True) if full is None]
        made = iter(self.decoder.decode_batch(asked) if asked else ())
        results: list[Decoded] = [next(made) if full is None else full for full in known]
        return self._with_coarse(requests, results)

    def _with_coarse(self, requests: Sequence[Request], results: list[Decoded]) -> list[Decoded]:
        """Keep the full images of which coarse ones are wanted, and put those in their places."""
        derived: dict[int, Mammogram] = {}
        decoded: list[int] = []
        for place, (request, result) in enumerate(zip(requests, results, strict=True)):
            if isinstance(result, Mammogram) and result.level != request.level:
                self._full[id(request.instance)] = result
                if result.above_bits_stored:
                    decoded.append(place)
                else:
                    derived[place] = result
        levels = [requests[place].level for place in derived]
        for place, coarse in zip(derived, self._derived(list(derived.values()), levels), strict=True):
            results[place] = coarse
        again = self.decoder.decode_batch([requests[place] for place in decoded]) if decoded else []
        for place, one in zip(decoded, again, strict=True):
            results[place] = one
        return results

    def _derived(self, fulls: Sequence[Mammogram], levels: Sequence[int]) -> list[Mammogram]:
        if not fulls:
            return []
        memory = self.decoder.engines.memory
        bands = [full.pixels for full in fulls]
        for step in range(max(levels)):
            deeper = [place for place, level in enumerate(levels) if level > step]
            for place, band in zip(deeper, memory.low_passes([bands[each] for each in deeper]), strict=True):
                bands[place] = band
        samples = [
            Samples(band, full.instance.codestream.precision, full.instance.codestream.signed, full.decoder)
            for band, full in zip(bands, fulls, strict=True)
            if full.instance.codestream is not None
        ]
        stored = memory.stored(samples, [full.instance.image for full in fulls], scaled=False)
        return [
            replace(full, pixels=one.pixels, level=level, value_range=(one.low, one.high))
            for full, level, one in zip(fulls, levels, stored, strict=True)
        ]
