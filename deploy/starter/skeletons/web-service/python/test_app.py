import unittest

import app


class Page(unittest.TestCase):
    def test_the_page_names_everything(self):
        page = app.render("shop", "1", "staging", 7)
        for part in ("name: shop", "version: 1", "environment: staging", "visits: 7"):
            self.assertIn(part, page)

    def test_an_unknown_path_is_not_found(self):
        self.assertEqual(app.answer("/nothing")[0], 404)

    def test_it_is_well(self):
        self.assertEqual(app.answer("/healthz"), (200, "ok\n"))


if __name__ == "__main__":
    unittest.main()
