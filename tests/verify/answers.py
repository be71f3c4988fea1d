"""Mathematical answers whose truth is known by construction: one value written in several ways, and values near it.

A kind is a table of blocks: the ways to write a value, at least two spaces apart, then `≠` and what is not equal to it.
`«...»` is an expression of the numbers that are drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

KINDS = {
    "integer": r"""
«n»  «n:,»  «n».0  «n».  +«n»  \text{«n»}  \mathbf{«n»}  $«n»$  «2*n»/2  \left(«n»\right)
  «f"{n:,}".replace(",", "{,}")»
  «f"{n:,}".replace(",", ",\\!")»  «f"{n:,}".replace(",", "\\,")»  ≠  «n+1»  -«n»  «n»0  «n».5  «n-1»

-«n»  −«n»  -«n:,»  \left(-«n»\right)  -«n».0  ≠  «n»  -«n+1»  -«n»1
""",
    "decimal": r"""
«m».«a»  «m».«a»0  \frac{«10*m+a»}{10}  «10*m+a»/10  \text{«m».«a»}  «m»\frac{«a»}{10}  ≠  «m».«b»  «m».0«a»
  -«m».«a»  «m»«a»

0.0«a»  .0«a»  \frac{«a»}{100}  «a»/100  «a» \times 10^{-2}  ≠  0.«a»  0.00«a»  0.0«b»  «a»
""",
    "fraction": r"""
«a»/«m»  \frac{«a»}{«m»}  \dfrac{«a»}{«m»}  \tfrac{«a»}{«m»}  \frac{«a*b»}{«m*b»}  \frac{-«a»}{-«m»}  «a»\div «m»
  («a»)/(«m»)
  \frac «a» {«m»}  ≠  \frac{«m»}{«a»}  -\frac{«a»}{«m»}  \frac{«a+1»}{«m»}  \frac{«a»}{«m+1»}  «a»  «m»

«b»\frac{1}{«m»}  «b» 1/«m»  \frac{«b*m+1»}{«m»}  «b»+\frac{1}{«m»}  «b*m+1»/«m»  ≠  \frac{«b»}{«m»}
  \frac{«b*m-1»}{«m»}  «b»1/«m»
""",
    "repeating decimal": r"""
0.\overline{«a»}  \frac{«a»}{9}  «a»/9  0.«a»\overline{«a»}  ≠  0.«a»  0.0\overline{«a»}  0.\overline{«a»0}
""",
    "percent": r"""
«m»\%  «m»%  «m» \%  «m» percent  «m»\text{ percent}  «m».0%  \frac{«m»}{100}  0.«m»  ≠  «m+1»\%  «m»0%  -«m»%  0.0«m»
""",
    "unit": r"""
«m» \text{ cm}  «m»\text{ centimeters}  «m» cm  «m»\ \mathrm{cm}  «m»~\text{cm}  «m»\,\text{cm}  «m»  ≠  «m+1» cm
  «m»0 \text{ cm}

«m» \text{ ft}^2  «m» ft^2  «m»\text{ square feet}  «m»\text{ ft}^{2}  «m»\text{ ft}²  «m»  ≠  «m+1» ft^2
  «m*m» \text{ ft}^2

«m»^\circ  «m»^{\circ}  «m»°  «m»\degree  «m» degrees  «m»\text{ degrees}  «m»  ≠  «m+1»^\circ  «m»0°  -«m»^\circ

«m» miles per hour  «m»\text{ mph}  «m» mph  «m»  ≠  «m+1» mph  «m»0 mph

«m»\text{ kg}  «m» kilograms  ≠  «m»\text{ g}  «m+1» kg  «m» meters
""",
    "money": r"""
\$«n».50  \$ «n».50  «n».50 dollars  \$«n:,».50  \text{\$«n».50}  «n».5  ≠  \$«n+1».50  \$«n».05  «n».50 euros  \$«n»
""",
    "large number": r"""
«m» million  «m»\text{ million}  «m»000000  «m»,000,000  «m»\times 10^6  ≠  «m»  «m+1» million  «m» billion  «m»00000
""",
    "root": r"""
«a»\sqrt{«p»}  \sqrt{«a*a*p»}  «a» \cdot \sqrt{«p»}  \frac{«a*p»}{\sqrt{«p»}}  «a»\cdot «p»^{1/2}  sqrt(«a*a*p»)
  «a»√«p»
  ≠  «b»\sqrt{«p»}  \sqrt{«a*p»}  -«a»\sqrt{«p»}  «a*p»  «a»\sqrt[3]{«p»}

«a»+«b»\sqrt{«p»}  «b»\sqrt{«p»} + «a»  \frac{«2*a»+«2*b»\sqrt{«p»}}{2}  «a»+\sqrt{«b*b*p»}  ≠  «a»-«b»\sqrt{«p»}
  «a+b»\sqrt{«p»}

\frac{«a»\sqrt{«p»}}{«m»}  \frac{«a»}{«m»}\sqrt{«p»}  «a»\sqrt{«p»}/«m»  \frac{«a*p»}{«m»\sqrt{«p»}}  ≠
  \frac{«a»}{«m»}  \frac{«a»\sqrt{«p»}}{«m+1»}

«a»\sqrt[3]{«p»}  \sqrt[3]{«a**3*p»}  «a»\cdot «p»^{\frac{1}{3}}  ≠  «a»\sqrt{«p»}  «b»\sqrt[3]{«p»}  \sqrt[3]{«a*p»}
""",
    "power": r"""
«a»^{«b»}  «a**b»  «a»^«b»  «a»\cdot «a»^{«b-1»}  \frac{«a»^{«b+1»}}{«a»}  «a»**«b»  ≠  «a»^{«b+1»}  «a**b+1»
  -«a»^{«b»}

«a».5 \times 10^{«b»}  «a»5\times 10^{«b-1»}  «a»5«"0"*(b-1)»  «a».5 \cdot 10^«b»  «a».5e«b»  ≠
  «a».5 \times 10^{«b+1»}  «a».5

«a»^{-«b»}  \frac{1}{«a»^{«b»}}  1/«a**b»  ≠  -«a»^{«b»}  «a**b»  «a»^{-«b+1»}
""",
    "constant": r"""
\frac{«a»\pi}{«m»}  \frac{«a»}{«m»}\pi  «a»\pi/«m»  \frac{«2*a»\pi}{«2*m»}  \pi\cdot\frac{«a»}{«m»}  ≠
  \frac{«a»}{«m»}  \frac{«m»\pi}{«a»}  -\frac{«a»\pi}{«m»}

«a» - «b»\pi  -«b»\pi + «a»  -(«b»\pi-«a»)  ≠  «b»\pi - «a»  «a» + «b»\pi  «a-b»\pi

«a»e^{-«b»}  \frac{«a»}{e^{«b»}}  «a»\exp(-«b»)  ≠  «a»e^{«b»}  «c»e^{-«b»}
""",
    "logarithm": r"""
\log_{«a»} {«a**b»}  «b»  \log_«a» «a**b»  \log_{«a»}(«a**b»)  ≠  \log_{«a»} «a**(b+1)»  «b+1»

\ln «a**3»  3\ln «a»  \ln(«a»^3)  \ln «a» + 2\ln(«a»)  ≠  4\ln «a»  \ln «a» + 2  (\ln «a»)^3

\frac{\ln «a»}{\ln «m»}  \log_{«m»} «a»  \frac{1}{\log_{«a»} «m»}  ≠  \log_{«a»} «m»  \log_{«m»} «a+1»

1+\log_{«a»} «m»  \log_{«a»} «m*a»  \log_{«a»} «m» + 1  ≠  1-\log_{«a»} «m»  \log_{«a»} «m+1» + 1
""",
    "trigonometry": r"""
\sin 30^\circ  \sin\frac{\pi}{6}  \sin(30°)  \cos 60^\circ  \frac12  0.5  ≠  \sin 31^\circ  \sin 30
  \frac{\sqrt3}{2}  -\frac12

\cos 36^\circ  \cos\frac{\pi}{5}  \frac{1+\sqrt5}{4}  \sin 54^\circ  ≠  \sin 36^\circ  \frac{\sqrt5-1}{4}  \cos 36

\sin «m»^\circ  \cos(90^\circ-«m»^\circ)  \sin\frac{«m»\pi}{180}  ≠  \cos «m+90»^\circ  \sin «m»  \sin «m+100»^\circ

\sin 2t  2\sin t\cos t  2 \cos t \sin t  \sin(2t)  ≠  \cos 2t  2\sin t  \sin t\cos t

\tan^2 x  \frac{\sin^2 x}{\cos^2 x}  \sec^2 x - 1  (\tan x)^2  ≠  \tan x^2  \cot^2 x  \sec^2 x + 1

\arctan «a»  \tan^{-1} «a»  \tan^{-1}(«a»)  ≠  \arctan «b»  \tan «a»  \cot «a»
""",
    "floor, ceiling, absolute value": r"""
\lfloor «a*m+1»/«a» \rfloor  «m»  \left\lfloor \frac{«a*m+1»}{«a»} \right\rfloor  \lceil «m-1».5\rceil  |-«m»|  ≠
  «m+1»  -«m»  \lceil «m».5 \rceil

|x-«a»|  |«a»-x|  \left|x-«a»\right|  ≠  x-«a»  |x+«a»|  |x|-«a»
""",
    "factorial": r"""
\binom{«m»}{2}  «m*(m-1)//2»  \dbinom{«m»}{2}  {«m» \choose 2}  \frac{«m»!}{2!«m-2»!}  ≠  \binom{«m+1»}{2}  «m*(m-1)»

\binom{n}{2}  \frac{n(n-1)}{2}  \frac{n^2-n}{2}  \frac{n!}{2(n-2)!}  ≠  \frac{n(n+1)}{2}  n(n-1)  \binom{n}{3}

\binom{2n}{n}  \frac{(2n)!}{(n!)^2}  \frac{(2n)!}{n!n!}  ≠  \binom{n}{2}  \frac{(2n)!}{n!}

(n+1)! - 1  -1+(n+1)!  (n+1)n!-1  ≠  (n+1)!+1  n!-1
""",
    "complex": r"""
«a»+«b»i  «b»i + «a»  \frac{«2*a»+«2*b»i}{2}  -(-«a»-«b»i)  ≠  «a»-«b»i  «b»+«a»i  -«a»+«b»i  «a+b»i
""",
    "polynomial": r"""
(x+«a»)(x-«b»)  x^2+«a»x-«b»x-«a*b»  (x-«b»)(x+«a»)  x(x+«a»)-«b»(x+«a»)  ≠  (x-«a»)(x+«b»)  x^2-«a*b»  (x+«a»)(x+«b»)

(t+«a»)^2  t^2+«2*a»t+«a*a»  (t+«a»)(t+«a»)  ≠  t^2+«a*a»  (t-«a»)^2  (x+«a»)^2  t^2+«2*a+1»t+«a*a»

«c»x^2y+«a»xy^2  xy(«c»x+«a»y)  «a»xy^2+«c»x^2y  «a»y^2x+«c»yx^2  ≠  «a»x^2y+«c»xy^2  «c»x^2y-«a»xy^2
""",
    "rational function": r"""
\frac{x+«a»}{x-«b»}  \frac{-x-«a»}{«b»-x}  (x+«a»)/(x-«b»)  1+\frac{«a+b»}{x-«b»}  ≠  \frac{x-«a»}{x-«b»}
  \frac{x-«b»}{x+«a»}

\frac{1}{x}+\frac{1}{y}  \frac{x+y}{xy}  1/x+1/y  ≠  \frac{1}{x+y}  \frac{2}{xy}  \frac1x-\frac1y
""",
    "powers of letters": r"""
«a»^{n+1}  «a»\cdot «a»^n  «a»^n \cdot «a»  ≠  «a»^n+1  «a»^{n-1}  «b»^{n+1}

e^{«a»x}  (e^x)^{«a»}  \exp(«a»x)  ≠  e^«a»x  «a»e^x  e^{x+«a»}

\sqrt{x}  x^{1/2}  x^{\frac{1}{2}}  x^{0.5}  √x  ≠  x^2  \sqrt[3]{x}  \frac{x}{2}

\frac{x^{«a+1»}}{«a+1»}+C  \frac{1}{«a+1»}x^{«a+1»}+C  C+\frac{x^«a+1»}{«a+1»}  ≠  \frac{x^{«a»}}{«a»}+C
  \frac{x^{«a+1»}}{«a+1»}
""",
    "interval": r"""
(«a»,«m»]  («a», «m»]  \left(«a», «m»\right]  x \in («a»,«m»]  «a» < x \le «m»  «a»<x<=«m»  («a».0, «2*m»/2]
  ≠  («a»,«m»)  [«a»,«m»]  («a»,«m+1»]  («b»,«m»]  «a» < x

[«a»,\infty)  [«a», +\infty)  x \ge «a»  x≥«a»  [«a», ∞)  ≠  («a»,\infty)  x > «a»  x \le «a»  [«b»,\infty)

(-\infty,«a»)\cup(«m»,\infty)  x<«a» \text{ or } x>«m»  («m»,\infty)\cup(-\infty,«a»)  ≠  («a»,«m»)
  (-\infty,«a»]\cup[«m»,\infty)

(-\infty,«a»)\cup(«a»,\infty)  \mathbb{R}\setminus\{«a»\}  ≠  (-\infty,\infty)  \mathbb{R}\setminus\{«b»\}

\mathbb{R}  (-\infty,\infty)  (-\infty, +\infty)  x \in \mathbb{R}  ≠  \mathbb{Z}  (0,\infty)  \emptyset
""",
    "inequality": r"""
k > «a»  «a» < k  k>«a»  k \gt «a»  ≠  k < «a»  k \ge «a»  k > «b»  k = «a»

«a» < t < «m»  «m» > t > «a»  t > «a» \text{ and } t < «m»  ≠  «a» \le t < «m»  «a» < t  «a» < t < «m+1»

y \neq «a»  y \ne «a»  y ≠ «a»  ≠  y = «a»  y \neq «b»
""",
    "set": r"""
\{«a», «b», «m»\}  \{«m»,«b»,«a»\}  \left\{«a», «m», «b»\right\}  x \in \{«a»,«b»,«m»\}
  \lbrace «a», «b», «m» \rbrace  \{«2*a»/2,«b»,«m»\}
  ≠  \{«a», «b»\}  \{«a», «b», «m+1»\}  \{«a», «b», «m», 0\}  «a»

«a», «m»  «m», «a»  «a» and «m»  «m» \text{ and } «a»  x=«a» \text{ or } x=«m»  x = «m», x = «a»  ≠  «a»
  «a», «m+1»  «a», «b», «m»

\pm «a»  «a», -«a»  x = \pm «a»  -«a» \text{ and } «a»  ±«a»  ≠  «a»  -«a»  \pm «b»

\frac{-«a» \pm \sqrt{«p»}}{2}  \frac{-«a»+\sqrt{«p»}}{2}, \frac{-«a»-\sqrt{«p»}}{2}  ≠
  \frac{«a» \pm \sqrt{«p»}}{2}  \frac{-«a»+\sqrt{«p»}}{2}
""",
    "tuple": r"""
(«a», -«m»)  («a»,-«m»)  \left(«a»,-«m»\right)  (x,y) = («a»,-«m»)  x=«a», y=-«m»  («a».0, -«2*m»/2)  ≠
  (-«m», «a»)  («a», «m»)  («a», -«m», 0)

(«a»,«b»),(«c»,«d»)  («c»,«d»), («a»,«b»)  («a»,«b») and («c»,«d»)  ≠  («a»,«b»)  («b»,«a»),(«d»,«c»)
  («a»,«b»),(«c»,«d+10»)
""",
    "matrix": r"""
\begin{pmatrix}«a»&«b»\\«c»&«d»\end{pmatrix}  \begin{bmatrix} «a» & «b» \\ «c» & «d» \end{bmatrix}
  A = \begin{pmatrix}«a».0&«b»\\«c»&«d»\end{pmatrix}
  \left(\begin{array}{cc}«a»&«b»\\«c»&«d»\end{array}\right)  ≠  \begin{pmatrix}«a»&«c»\\«b»&«d»\end{pmatrix}
  «a*d-b*c»
  \begin{pmatrix}«a»&«b»\\«c»&-«d»\end{pmatrix}

\begin{pmatrix}«a»\\«b»\\«m»\end{pmatrix}  \begin{bmatrix} «a» \\ «b» \\ «m» \end{bmatrix}  ≠
  \begin{pmatrix}«a»\\«m»\\«b»\end{pmatrix}  \begin{pmatrix}«a»\\«b»\end{pmatrix}
""",
    "equation": r"""
y = «a»x+«b»  y=«b»+«a»x  «a»x+«b»=y  ≠  y = «a»x-«b»  x = «a»y+«b»  y=«b»x+«a»

«a»x+«b»y=«c»  «b»y+«a»x=«c»  «a»x+«b»y-«c»=0  «2*a»x+«2*b»y=«2*c»  ≠  «a»x-«b»y=«c»  «a»x+«b»y=«d»  «a»x+«b»y+«c»=0

(x-«a»)^2+(y+«b»)^2=«c*c»  (y+«b»)^2 + (x-«a»)^2 = «c»^2  ≠  (x+«a»)^2+(y-«b»)^2=«c*c»  (x-«a»)^2-(y+«b»)^2=«c*c»
""",
    "named": r"""
k = «m»  k=«m»  «m»  «m» = k  k=«2*m»/2=«m»  ≠  k=«m+1»  -«m»  k = -«m»

f(x) = x^2+«a»  x^2+«a»  f(x)=«a»+x^2  ≠  f(x) = x^2-«a»  x^2+«b»

f'(x) = «a»x  «a»x  f'(x)=«a» x  ≠  f'(x) = «b»x  «a»x^2

\text{Area} = «m»  «m»  ≠  \text{Area} = «m+1»  «m»0
""",
    "word": r"""
\text{Yes}  Yes  yes  \textbf{Yes}  ≠  No  \text{maybe}

\text{B}  (B)  \textbf{(B)}  \mathrm{B}  ≠  A  (C)  AB

\infty  +\infty  ∞  ≠  -\infty  0

\emptyset  \varnothing  \{\}  ∅  ≠  \{0\}  0
""",
    "other notation": r"""
«a»:«m»  «a» : «m»  ≠  «m»:«a»  «a»:«m+1»

1011_2  1011_{2}  (1011)_2  ≠  1011_3  1101_2  1011
""",
}


class Case(NamedTuple):
    kind: str
    given: str
    expected: str
    right: bool


def answers(rng: Random, draws: int) -> Iterator[Case]:
    """Of each block and draw, two pairs of equal answers and one of different ones."""
    for (kind, table), _ in product(KINDS.items(), range(draws)):
        for block in table.strip().split("\n\n"):
            ways, others = written(block, drawn(rng))
            for _ in range(2):
                yield Case(kind, *rng.sample(ways, 2), True)
            yield Case(kind, rng.choice(others), rng.choice(ways), False)


def written(block: str, numbers: dict[str, Any]) -> list[list[str]]:
    filled = re.sub("«(.+?)»", lambda found: _value(found[1], numbers), block.strip())
    return [part.split("\0") for part in re.sub(r"\s{2,}", "\0", filled).split("\0≠\0")]


def drawn(rng: Random) -> dict[str, Any]:
    """Digits that differ, small primes, primes of two digits, large numbers."""
    digits = dict(zip("abcd", rng.sample(range(2, 10), 4), strict=True))
    return {**digits, "p": rng.choice(_SMALL), "m": rng.choice(_PRIMES), "n": rng.randint(1000, 10**7)}


_SMALL, _PRIMES = (2, 3, 5, 7), (11, 13, 17, 19, 23, 29, 31, 37, 41, 43)


def _value(expression: str, numbers: dict[str, Any]) -> str:
    """Of a sum, or of a name with its format."""
    name, _, layout = expression.partition(":") if '"' not in expression else (expression, "", "")
    return format(eval(name, {}, numbers), layout)
