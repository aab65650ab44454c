# The public name of a load balancer and its certificate, which AWS renews.

variable "zone_id" {
  description = "A public hosted zone of Route 53 that the name belongs to."
  type        = string
}

variable "domain" {
  description = "The name, such as llm.example.com."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain is a name such as llm.example.com."
  }
}

variable "balancer" {
  description = "Where it leads (module control_plane)."
  type        = object({ dns_name = string, zone_id = string })
}

resource "aws_acm_certificate" "this" {
  domain_name       = var.domain
  validation_method = "DNS"
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "proof" {
  for_each = {
    for each in aws_acm_certificate.this.domain_validation_options : each.domain_name => each
  }
  zone_id         = var.zone_id
  name            = each.value.resource_record_name
  type            = each.value.resource_record_type
  records         = [each.value.resource_record_value]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [for each in aws_route53_record.proof : each.fqdn]
}

resource "aws_route53_record" "this" {
  zone_id = var.zone_id
  name    = var.domain
  type    = "A"
  alias {
    name                   = var.balancer.dns_name
    zone_id                = var.balancer.zone_id
    evaluate_target_health = true
  }
}

output "certificate_arn" {
  description = "Once it is valid."
  value       = aws_acm_certificate_validation.this.certificate_arn
}

output "url" {
  value = "https://${var.domain}"
}
