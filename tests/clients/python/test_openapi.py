"""The description of HTTP with JSON is an OpenAPI document, and a client that knows nothing else can use it."""

import json
import unittest
import urllib.request

import openapi_spec_validator

from harness import System


class OpenApi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.system = System()
        with urllib.request.urlopen(f"http://{cls.system.address}/openapi.json", timeout=30) as answer:
            cls.document = json.load(answer)

    @classmethod
    def tearDownClass(cls):
        cls.system.stop()

    def test_the_document_is_valid(self):
        self.assertEqual(self.document["openapi"], "3.1.0")
        openapi_spec_validator.validate(self.document)

    def test_an_operation_of_it_can_be_called(self):
        [path] = [
            path
            for path, operations in self.document["paths"].items()
            if operations.get("get", {}).get("operationId") == "IdentityService_GetOrganization"
        ]
        request = urllib.request.Request(
            f"http://{self.system.address}{path.format(organization='acme')}",
            headers={"Authorization": f"Bearer {self.system.token('alice')}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            self.assertEqual(json.load(answer)["name"], "organizations/acme")


if __name__ == "__main__":
    unittest.main()
