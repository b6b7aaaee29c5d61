"""Asks a URL through BoringSSL, as a browser does, trusting the authorities of one file."""

import sys

import curl_cffi
from curl_cffi import requests

url, authorities = sys.argv[1:]
print(curl_cffi.Curl().version().decode())
answer = requests.get(url, verify=authorities, impersonate="chrome", timeout=60)
print(answer.status_code, answer.text.strip())
