//! Against values worked out by hand or tabulated.

use super::*;

fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} is not {b}");
}

#[test]
fn summaries() {
    assert_eq!(Summary::of(&[]), None);
    let one = Summary::of(&[3.0]).unwrap();
    assert_eq!((one.n, one.mean, one.sd, one.median), (1, 3.0, 0.0, 3.0));
    assert_eq!(one.interval, Interval { low: 3.0, high: 3.0, coverage: 0.0 });
    let s = Summary::of(&[4.0, 2.0, 8.0, 6.0]).unwrap();
    assert_eq!((s.mean, s.median), (5.0, 5.0));
    // (9 + 1 + 1 + 9) / 3; a few roundings.
    close(s.sd, (20.0f64 / 3.0).sqrt(), 1e-15);
}

#[test]
fn quantiles_lie_between_neighbours() {
    let v = [10.0, 20.0, 30.0, 40.0, 50.0];
    assert_eq!([0.0, 0.25, 0.5, 0.6, 1.0].map(|q| quantile(&v, q)), [10.0, 20.0, 30.0, 34.0, 50.0]);
    assert_eq!(quantile(&[7.0], 0.99), 7.0);
}

/// Ranks and coverages as tabulated for the sign test: n, first rank of the interval (from 0), tail in 2^-n.
#[test]
fn median_intervals() {
    let cases = [
        (1, 0, 1.0),
        (2, 0, 1.0),
        (5, 0, 1.0),
        (6, 0, 1.0),
        (8, 0, 1.0),
        (9, 1, 10.0),
        (10, 1, 11.0),
        (12, 2, 79.0),
        (20, 5, 21700.0),
    ];
    for (n, k, tail) in cases {
        let sorted: Vec<f64> = (0..n).map(f64::from).collect();
        let i = median_interval(&sorted);
        assert_eq!((i.low, i.high), (f64::from(k), f64::from(n - 1 - k)), "n = {n}");
        close(i.coverage, 1.0 - 2.0 * tail / 2f64.powi(n), 1e-12);
    }
    // A thousand values do not underflow, and the interval is near the normal approximation: 500 -+ 31.
    let many: Vec<f64> = (0..1000).map(f64::from).collect();
    let i = median_interval(&many);
    assert!((i.low - 469.0).abs() < 2.0 && i.coverage >= LEVEL && i.coverage < 0.955, "{i:?}");
}

#[test]
fn rank_distributions() {
    // Two against three: 1, 1, 2, 2, 2, 1, 1 of 10 orders.
    let d = rank_distribution(2, 3);
    assert_eq!(d, [1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0].map(|c| c / 10.0));
    for (m, n) in [(1, 1), (5, 5), (20, 40)] {
        let d = rank_distribution(m, n);
        close(d.iter().sum::<f64>(), 1.0, 1e-12);
        assert_eq!(d, d.iter().rev().copied().collect::<Vec<_>>());
    }
}

#[test]
fn samples_that_do_not_overlap_differ() {
    let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 20.0, 30.0, 40.0, 50.0]);
    let c = Comparison::of(&a, &b).unwrap();
    close(c.p, 2.0 / 252.0, 1e-12);
    close(c.p, Comparison::smallest_p(5, 5), 1e-12);
    assert_eq!(c.ratio, 10.0);
    // The third smallest and the third largest of 25 ratios: 2 * 4 / 252 lie outside.
    let ratios = sorted(&a.iter().flat_map(|a| b.iter().map(move |b| b / a)).collect::<Vec<_>>());
    assert_eq!((c.interval.low, c.interval.high), (ratios[2], ratios[22]));
    close(c.interval.coverage, 1.0 - 8.0 / 252.0, 1e-12);
    let back = Comparison::of(&b, &a).unwrap();
    assert_eq!((back.p, back.ratio), (c.p, 0.1));
}

#[test]
fn equal_samples_do_not_differ() {
    let a = [1.0, 2.0, 3.0, 4.0];
    let c = Comparison::of(&a, &a).unwrap();
    assert_eq!(c.ratio, 1.0);
    // The approximation of erfc is good to 1.5e-7.
    close(c.p, 1.0, 1e-6);
    let c = Comparison::of(&[5.0; 8], &[5.0; 8]).unwrap();
    assert_eq!((c.p, c.ratio), (1.0, 1.0));
    assert_eq!(Comparison::of(&a, &[]), None);
}

/// The exact distribution and its approximation agree where both hold.
#[test]
fn the_approximation_is_near() {
    let a: Vec<f64> = (0..20).map(|i| f64::from(i) + 0.25).collect();
    let b: Vec<f64> = (0..20).map(|i| f64::from(i) + 4.5).collect();
    let exact = Comparison::of(&a, &b).unwrap().p;
    let u: f64 = a.iter().flat_map(|a| b.iter().map(move |b| wins(*b, *a))).sum();
    close(2.0 * normal_tail(400.0 - u, &a, &b), exact, 2e-3);
    // 0.05 two-sided is 1.959964 standard deviations.
    close(complementary_error(1.959_964 / std::f64::consts::SQRT_2), 0.05, 3e-7);
}

#[test]
fn several_tests() {
    let p = holm(&[0.01, 0.04, 0.03, 0.005]);
    for (found, expected) in p.iter().zip([0.03, 0.06, 0.06, 0.02]) {
        close(*found, expected, 1e-12);
    }
    assert_eq!(holm(&[0.6, 0.9]), [1.0, 1.0]);
    assert_eq!(holm(&[]), [] as [f64; 0]);
}
