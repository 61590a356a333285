# Verifies a mail's DKIM signature with Mail::DKIM; `NAME TXT` lines of a file stand for the DNS.
use strict;
use warnings;
use Mail::DKIM::Verifier;

my ($records) = @ARGV;
my %txt;
open my $file, '<', $records or die "$records: $!";
while (<$file>) {
    chomp;
    my ($name, $text) = split / /, $_, 2;
    $txt{$name} = $text;
}

package Records {
    sub new { bless {}, shift }

    sub send {
        my ($self, $name, $type) = @_;
        my $packet = Net::DNS::Packet->new($name, $type);
        my @pieces = unpack '(a255)*', $txt{$name} // return $packet;
        $packet->push(answer => Net::DNS::RR->new(name => $name, type => 'TXT', txtdata => [@pieces]));
        return $packet;
    }

    sub query { return shift->send(@_) }
    sub errorstring { return 'NOERROR' }
}

Mail::DKIM::DNS::resolver(Records->new);
my $verifier = Mail::DKIM::Verifier->new;
binmode STDIN;
while (<STDIN>) { $verifier->PRINT($_) }
$verifier->CLOSE;
print $verifier->result_detail, "\n";
