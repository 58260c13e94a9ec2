"""What can change a corpus: every threshold of its stages."""

from dataclasses import dataclass

EXTRACTOR_NAMES = ("quality", "bulk", "both")
PRESET_NAMES = ("webtext", "gopher", "c4", "fineweb", "none")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Settings of `build_corpus`, in the order of its stages."""

    # read
    max_document_bytes: int = 20_000_000  # larger pages, lines and members are set aside
    max_damaged_share: float = 0.1  # of a source's records, beyond the first ten, before we refuse

    # extract
    extractor: str = "quality"  # trafilatura; or "bulk", ours and fast; or what "both" agree on
    document_seconds: float = 30.0  # processor time one page may take
    document_memory_mb: int = 512  # address space one page may take

    # language: the paper kept English; "" keeps every language
    language: str = "en"
    language_threshold: float = 0.65

    # rules
    rules: str = "webtext"

    # near-dedup: of two documents whose word 5-grams have this Jaccard similarity one is dropped.
    # 14 bands of 8 rows find a pair of similarity s with probability 1 - (1 - s^8)^14: 0.82 at
    # 0.75 and 0.995 at 0.85, so asking for less than 0.7 would promise what they cannot find.
    near_duplicate_similarity: float = 0.7

    # passages: lines or paragraphs that stand in several documents, or twice in one
    passages: str = "off"  # "line" or "paragraph"
    passage_words: int = 10  # shorter ones are left alone
    passage_documents: int = 1  # that may have a passage in common; of more the best one keeps it

    # wikipedia: names that may not occur in a host, label by label
    excluded_hosts: tuple[str, ...] = ("wikipedia", "wikimedia.org", "wikiwand.com")
    wikipedia_mirrors: bool = True  # drop what lies on a site that copies Wikipedia, too
    wikipedia_dump: tuple[str, ...] = ()  # MediaWiki dumps: what shares their text is dropped ...
    wikipedia_share: float = 0.2  # ... from this share of a document's word 8-grams

    # decontaminate: evaluation sets, as files or folders of them; none, none is looked for
    decontaminate: tuple[str, ...] = ()
    decontaminate_words: int = 8  # of an n-gram; GPT-3 took 13
    decontaminate_least_words: int = 13  # that a passage must share, or most of an example
    decontaminate_common: int = 10  # documents; phrases in more are nobody's text (GPT-3 too)
    decontaminate_action: str = "drop"  # or "cut": the passages alone

    # split
    valid_share: float = 0.05
    test_share: float = 0.05

    # datasheet: a file of lines COUNT NAME, as OpenAI's domains.txt, to put beside our own
    top_domains: str = ""

    def __post_init__(self) -> None:
        """Refuse values that no stage could honour; raises `ValueError` naming the field."""
        if self.max_document_bytes < 1:
            raise ValueError("max_document_bytes must be at least 1")
        if not 0 <= self.max_damaged_share <= 1:
            raise ValueError("max_damaged_share must be between 0 and 1")
        if self.extractor not in EXTRACTOR_NAMES:
            raise ValueError(f"extractor must be one of {', '.join(EXTRACTOR_NAMES)}")
        if self.document_seconds <= 0:
            raise ValueError("document_seconds must be positive")
        if self.document_memory_mb < 64:
            raise ValueError("document_memory_mb must be at least 64")
        if not 0 <= self.language_threshold <= 1:
            raise ValueError("language_threshold must be between 0 and 1")
        if self.rules not in PRESET_NAMES:
            raise ValueError(f"rules must be one of {', '.join(PRESET_NAMES)}")
        if not 0 < self.near_duplicate_similarity <= 1:
            raise ValueError("near_duplicate_similarity must be above 0 and at most 1")
        if self.passages not in ("off", "line", "paragraph"):
            raise ValueError("passages must be 'off', 'line' or 'paragraph'")
        if min(self.passage_words, self.passage_documents) < 1:
            raise ValueError("passage_words and passage_documents must be at least 1")
        if not 0 < self.wikipedia_share <= 1:
            raise ValueError("wikipedia_share must be above 0 and at most 1")
        if not 4 <= self.decontaminate_words <= 64:
            raise ValueError("decontaminate_words must be from 4 to 64")
        if self.decontaminate_least_words < 1:
            raise ValueError("decontaminate_least_words must be at least 1")
        if self.decontaminate_common < 1:
            raise ValueError("decontaminate_common must be at least 1")
        if self.decontaminate_action not in ("drop", "cut"):
            raise ValueError("decontaminate_action must be 'drop' or 'cut'")
        if min(self.valid_share, self.test_share) < 0 or self.valid_share + self.test_share >= 1:
            raise ValueError("valid_share and test_share must leave a share for training")
