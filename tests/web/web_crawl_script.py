"""A crawl in a process of its own: `web_crawl_script.py LINKS OUT ADDRESS [CONCURRENCY]`."""

import sys
from pathlib import Path

from web_site import QUICK

from gptwo.web.config import CrawlConfig
from gptwo.web.crawl import crawl

if __name__ == "__main__":
    links, out, address, *rest = sys.argv[1:]
    concurrency = int(rest[0]) if rest else 2
    config = CrawlConfig(**QUICK, segment_links=5, concurrency=concurrency)
    crawl(Path(links), Path(out), config, connect_to=address)
