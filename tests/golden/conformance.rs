//! Every resource of the API, with the parts of the conformance suite that it passes in the tests of its service.

use crate::golden::assert_same;

#[test]
fn resources_by_the_parts_of_the_suite() {
    assert_same("conformance.txt", &pavior_testkit::conformance::table());
}
