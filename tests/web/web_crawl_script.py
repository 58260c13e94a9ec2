"""A crawl in a process of its own: `web_crawl_script.py LINKS OUT ADDRESS`."""

import sys
from pathlib import Path

from web_site import QUICK

from gptwo.web.config import CrawlConfig
from gptwo.web.crawl import crawl

if __name__ == "__main__":
    links, out, address = sys.argv[1:]
    config = CrawlConfig(**QUICK, segment_links=5, concurrency=2)
    crawl(Path(links), Path(out), config, connect_to=address)
