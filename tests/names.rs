//! Distinguished names at the edges of their syntax.

use whatsapp_ingress::client_certificate::has_common_name;

const META: &str = "client.webhooks.fbclientcerts.com";

/// RFC 4514 does not escape tabs and line feeds, so they are a part of the value.
#[test]
fn control_character_is_a_part_of_a_name() {
    for name in ["CN=\t{}", "CN=\n{}", "CN=\r{}", "CN=\u{c}{}", "O=a,CN=\n{}"] {
        assert!(!has_common_name(&name.replace("{}", META), META), "{name:?}");
    }
}
