"""Says what pyca/cryptography reads in PEM files: one line for each name and end of a certificate, or for a request."""

import calendar
import sys

from cryptography import x509
from cryptography.x509.oid import ExtensionOID


def read(text):
    if b"CERTIFICATE REQUEST" in text:
        request = x509.load_pem_x509_csr(text)
        if not request.is_signature_valid:
            raise ValueError("the request is not signed by its key")
        print("key", request.public_key().curve.name)
        return
    certificate = x509.load_pem_x509_certificate(text)
    names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    for word, kind in [("uri", x509.UniformResourceIdentifier), ("dns", x509.DNSName), ("ip", x509.IPAddress)]:
        for name in names.get_values_for_type(kind):
            print(word, name)
    print("key", certificate.public_key().curve.name)
    print("ends", calendar.timegm(certificate.not_valid_after_utc.timetuple()))


for path in sys.argv[1:]:
    with open(path, "rb") as file:
        read(file.read())
