"""What a scrape of /metrics gives, read by prometheus-client's own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Scraped"]


class Scraped:
    """The samples of one scrape.

    Args:
        text: as it was answered.
    """

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.kinds = {family.name: family.type for family in families}
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: object) -> float:
        """One sample; zero where there is none."""
        return self.samples.get((name, frozenset((k, str(v)) for k, v in labels.items())), 0.0)

    def total(self, name: str, **labels: object) -> float:
        """The sum of all samples that have these labels among theirs."""
        wanted = {(k, str(v)) for k, v in labels.items()}
        return sum(value for (each, has), value in self.samples.items() if each == name and wanted <= has)

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of every sample of a name."""
        return [dict(has) for each, has in self.samples if each == name]
