//! What makes a Service work: selection of the pods that serve it, written as EndpointSlices and as
//! the older Endpoints; the mirror of Endpoints that users write; addresses of load balancers; and
//! what is said about ports that cannot be served.

pub mod endpoints;
pub mod load_balancer;
pub mod mirror;
mod paging;
pub mod pool;
pub mod sctp;
pub mod selection;
pub mod slices;

#[cfg(test)]
mod load_balancer_tests;
#[cfg(test)]
mod tests;
