// SPDX-License-Identifier: Apache-2.0
//! Whole packets whose code point alone decides: most policies ask for little else, and these packets need no tree.

use wire::Dscp;

use super::rule::{Class, Dscps, Rule};

/// For each code point the class of every whole packet that has it, if all of them are of one.
pub(super) struct ByDscp([Option<Class>; 64]);

impl ByDscp {
    pub(super) fn of(rules: &[Rule], default: Class) -> Self {
        let mut classes = [None; 64];
        for (value, class) in (0..).zip(&mut classes) {
            let Some(dscp) = Dscp::new(value) else { continue };
            let mut of_whole = rules.iter().filter(|rule| rule.later_fragment != Some(true));
            *class = match of_whole.find(|rule| rule.dscps.contains(dscp)) {
                None => Some(default),
                Some(rule) => asks_no_more(rule).then_some(rule.class),
            };
        }
        Self(classes)
    }

    #[inline(always)]
    pub(super) fn class(&self, dscp: Dscp) -> Option<Class> {
        self.0.get(usize::from(dscp.get())).copied().flatten()
    }
}

/// Whether a rule takes every whole packet with one of its code points.
fn asks_no_more(rule: &Rule) -> bool {
    Rule { dscps: Dscps::ALL, later_fragment: None, ..*rule } == Rule::any(rule.class)
}

#[cfg(test)]
mod tests {
    use super::super::rule::Span;
    use super::*;

    #[test]
    fn a_code_point_decides_unless_a_rule_that_asks_for_more_comes_first() {
        let [ef, cs6, af11] = [Dscp::EF, Dscp::CS6, Dscp::new(10).unwrap()];
        let only = |dscp, class| Rule { dscps: Dscps::only(dscp), ..Rule::any(Class(class)) };
        let tcp = Rule { protocols: Span::only(6), ..only(cs6, 2) };
        let later = Rule { later_fragment: Some(true), ..Rule::any(Class(9)) };
        let by_dscp = ByDscp::of(&[later, only(ef, 1), tcp, only(cs6, 3), only(ef, 4)], Class(5));
        let classes = [ef, cs6, af11].map(|dscp| by_dscp.class(dscp));
        assert_eq!(classes, [Some(Class(1)), None, Some(Class(5))]);
        let never = ByDscp::of(&[Rule { protocols: Span::only(17), ..Rule::any(Class(1)) }], Class(0));
        assert_eq!([ef, cs6, af11].map(|dscp| never.class(dscp)), [None; 3]);
    }
}
