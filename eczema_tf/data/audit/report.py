"""What the audit of a data set says, as it is kept in `audit.json`: counts and ids, no content."""

from eczema_tf.files import Record

OWN, FAMILY = "own", "family"  # whose diagnosis a text names
NOUNS = {
    "identical_photo": "identical photo",
    "near_photo": "near-duplicate photo",
    "identical_text": "identical text",
    "near_text": "nearly identical text",
}


class DuplicateCounts(Record):
    """Duplicates of one kind."""

    clusters: int
    across_groups: int  # clusters in more than one of the manifest's own groups
    rows: int
    cases: int
    examples: list[list[str]]  # example ids of some clusters


class GroupCounts(Record):
    """What became of the manifest's groups when those that share a duplicate were joined."""

    before: int
    after: int
    merged: int  # of those before
    largest_cases: int  # cases in the largest group after


class DiagnosisCounts(Record):
    """Texts that name a diagnosis; a share is None where there is nothing to be a share of."""

    texts: int
    share: float | None  # of all texts
    share_of_positive: float | None
    share_of_negative: float | None
    conditions: dict[str, int]
    examples: list[str]  # example ids


class NotCompared(Record):
    """What the audit did not look at, or took for chance."""

    plain_photos: int
    chance_texts: int
    template_texts: int


class AuditReport(Record):
    """The contents of `audit.json`."""

    duplicates: dict[str, DuplicateCounts]  # by kind, a key of `NOUNS`
    groups: GroupCounts
    named_diagnoses: dict[str, DiagnosisCounts]  # "own" and "family"
    not_compared: NotCompared

    def describe(self) -> str:
        """Returns a few lines for people."""
        lines = []
        for kind, found in self.duplicates.items():
            if found.clusters:
                across = "all within one group"
                if found.across_groups:
                    across = f"{found.across_groups} across groups"
                first = ", ".join(map(repr, found.examples[0][:2]))
                lines.append(
                    f"{NOUNS[kind]}s: {found.clusters}, in {found.cases} cases, {across} (for"
                    f" instance {first})"
                )
        if self.groups.merged:
            lines.append(
                f"{self.groups.merged} groups share one of these: joined, {self.groups.before}"
                f" groups become {self.groups.after}"
            )
        for whose, named in self.named_diagnoses.items():
            if not named.texts:
                continue
            what, warning = "diagnosis in the family", ""
            if whose == OWN:
                what = "skin diagnosis"
                warning = (
                    "; the answer can be read off them: leave them out, or say so with the results"
                )
            shares = {"positive": named.share_of_positive, "negative": named.share_of_negative}
            given = [
                f"{share:.1%} of {label} ones"
                for label, share in shares.items()
                if share is not None
            ]
            lines.append(
                f"{named.texts} texts name a {what} ({', '.join(given) or 'unlabelled'}){warning}"
            )
        if not lines:
            lines = ["no duplicates across cases, no text names a diagnosis"]
        return "\n".join(f"audit: {line}" for line in lines)
