//! The node's network: View → Desired → Delta → apply.
